# OTSeg without visual prompts: CLIP's image tower stays as it is.
_base_ = "./otseg.py"

model = dict(backbone=dict(visual_prompts=None))
