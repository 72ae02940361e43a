# The training-free model and what else a test of it on a dataset needs. A config adds the dataset,
# and resizes its images so that the short side has 336 pixels.
_base_ = ["./models/training_free.py", "./schedules/no_training.py", "./default_runtime.py"]
