"""The statistics of a sift: from scores of training images to accused images and their trigger."""
