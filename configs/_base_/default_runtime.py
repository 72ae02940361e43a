default_scope = "mmseg"
custom_imports = dict(imports=["mmseg_otseg"], allow_failed_imports=False)
runner_type = "ZeroShotRunner"  # mmengine's, over the config as `mmseg-otseg config` prints it
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),
)
randomness = dict(seed=0)
visualizer = dict(
    type="SegLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")], name="visualizer"
)
log_processor = dict(by_epoch=False)
log_level = "INFO"
load_from = None
resume = False
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="MasterLoggerHook", interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(
        type="DurableCheckpointHook",
        by_epoch=False,
        interval=2000,
        max_keep_ckpts=3,
        save_best="hIoU",
    ),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    visualization=dict(type="SegVisualizationHook"),
    run_check=dict(type="RunCheckHook"),
    resume_check=dict(type="ResumeCheckHook"),
    finite_loss=dict(type="FiniteLossHook"),
    iteration_seed=dict(type="IterationSeedHook"),
    fine_tune=dict(type="FineTuneHook"),
    work_dir_lock=dict(type="WorkDirLockHook"),
)
tta_model = dict(type="ZeroShotTTAModel")
