# OTSeg with a single prompt per class, "a photo of a {}.".
_base_ = "./otseg.py"

model = dict(neck=dict(text=dict(templates="photo")))
