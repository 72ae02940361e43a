# Any names on any photographs, without training and without a checkpoint:
# tools/segment.py PHOTOS --classes "road, car, tree | trees"
# On the data sets of configs/open_vocabulary: tools/test.py THIS_FILE --data voc21
_base_ = ["../_base_/models/training_free.py", "../_base_/default_runtime.py"]

# Stands in for the names that a call gives; each name takes 80 sentences to encode.
model = dict(split=dict(classes=["object"]))

test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(2048, 336), keep_ratio=True),  # the short side has 336 pixels
    dict(type="PackSegInputs"),
]
