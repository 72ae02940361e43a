# OTSeg on Pascal VOC: a strongly regularized plan, epsilon 0.5.
_base_ = "../otseg/voc_512.py"

model = dict(
    decode_head=dict(epsilon=0.5),
)
