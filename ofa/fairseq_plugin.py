"""Everything that ``--user-dir ofa`` adds to fairseq, in the order in which it has to come."""


def register() -> None:
    """Mend fairseq, then register scheduler, architectures, criterions and tasks. Safe to call twice."""
    from ofa import fairseq_compat, fairseq_scheduler

    fairseq_compat.install()
    fairseq_scheduler.install()

    # Importing these registers what they define.
    import ofa.criterions.fairseq_label_smoothed  # noqa: F401
    import ofa.models.fairseq_model  # noqa: F401
    import ofa.tasks.fairseq_task  # noqa: F401
