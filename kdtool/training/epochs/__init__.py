"""What happens in an epoch: the steps on a learner, and its validation."""
