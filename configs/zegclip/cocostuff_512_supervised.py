# ZegCLIP on COCO-Stuff 164k, fully supervised: the labels of all 171 classes are used in training.
# The metric still tells the 156 seen and 15 unseen classes of the other settings apart.
_base_ = "./cocostuff_512.py"

train_dataloader = dict(dataset=dict(setting="supervised"))
model = dict(decode_head=dict(seen_bias=0.0))
