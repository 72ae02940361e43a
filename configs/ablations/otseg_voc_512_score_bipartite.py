# OTSeg on Pascal VOC: the score map matches every pixel to one prompt.
_base_ = "../otseg/voc_512.py"

model = dict(
    decode_head=dict(score_transport="bipartite"),
)
