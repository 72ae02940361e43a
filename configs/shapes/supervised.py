# OTSeg trained with the masks of all 20 classes: what zero-shot training is measured against.
_base_ = "./otseg.py"

train_dataloader = dict(dataset=dict(setting="supervised"))
