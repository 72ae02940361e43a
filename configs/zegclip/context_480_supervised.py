# ZegCLIP on Pascal Context, fully supervised: the labels of all 59 classes are used in training.
# The metric still tells the 49 seen and 10 unseen classes of the other settings apart.
_base_ = "./context_480.py"

train_dataloader = dict(dataset=dict(setting="supervised"))
model = dict(decode_head=dict(seen_bias=0.0))
