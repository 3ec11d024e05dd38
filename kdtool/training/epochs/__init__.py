"""What happens in an epoch: the steps on a learner, recorded or not, and its validation."""
