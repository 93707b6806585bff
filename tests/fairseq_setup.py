"""Configuration and task from command-line flags, as fairseq makes them."""


def configuration(flags: list[str]):
    from fairseq import options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    import ofa

    ofa.register_fairseq_plugin()
    return convert_namespace_to_omegaconf(
        options.parse_args_and_arch(options.get_training_parser(), flags)
    )


def task_with_data(cfg):
    """The task of a configuration, its training and validation files loaded."""
    from fairseq import tasks

    task = tasks.setup_task(cfg.task)
    task.load_dataset("train")
    task.load_dataset("valid")
    return task
