# As default_runtime.py, with the curves in TensorBoard too (pip install tensorboard).
_base_ = "./default_runtime.py"

visualizer = dict(vis_backends=[dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")])
