# ZegCLIP on Pascal VOC, fully supervised: the labels of all 20 classes are used in training. The
# metric still tells the 15 seen and 5 unseen classes of the other settings apart.
_base_ = "./voc_512.py"

train_dataloader = dict(dataset=dict(setting="supervised"))
model = dict(decode_head=dict(seen_bias=0.0))
