# OTSeg on Pascal VOC: an almost unregularized plan, epsilon 0.01.
_base_ = "../otseg/voc_512.py"

model = dict(
    decode_head=dict(epsilon=0.01),
)
