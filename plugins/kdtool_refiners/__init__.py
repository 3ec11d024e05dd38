"""The built-in refiners: each one makes a smaller network out of a network, or takes another architecture.

They are plugins like those of a third party. The surgery itself is in `kdtool.surgery`; here are its options.
"""
