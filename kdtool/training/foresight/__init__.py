"""What a command will do and cost, found before it trains.

`rehearsal` lets a method run through with a run that trains nothing: each phase is planned as it will be and takes a
few steps, which `stopwatch` times. So any strategy is foreseen, those of plugins too, and no method has to say in
advance how many phases it has. `forecast` is what was found. Nothing of a rehearsal is kept, and no random number
and no file of the run is touched.
"""
