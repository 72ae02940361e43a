# OTSeg with one prompt per class, "a photo of a {}.", six times: copies share what one would take,
# and the logits keep the range that six prompts give them.
_base_ = "./otseg.py"

model = dict(neck=dict(text=dict(templates=["a photo of a {}."] * 6)))
