"""What the processes of one training share: the images of each step, gradients, statistics and weights."""
