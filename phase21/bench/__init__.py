"""The project's own benchmark: what phase21 costs, beside loops that do the least, measured in the same run."""

from __future__ import annotations


def main(*, as_json: bool, quick: bool, only: str | None) -> int:
    """Measure and show; 0 once measured, whatever the figures say.

    Raises Phase21Error where something could not be measured, once the rest is shown.
    """
    import sys  # noqa: PLC0415 - each workload's process reads this file, and needs none of it

    from phase21.bench import measure, report  # noqa: PLC0415
    from phase21.bench.bounds import BOUNDS, figure_of  # noqa: PLC0415
    from phase21.domain.errors import Phase21Error  # noqa: PLC0415

    names = measure.chosen(only)
    with report.bar() as progress:
        samples, wrong = measure.measured(names, quick=quick, progress=progress)
    figures = [figure_of(bound, samples[bound.workload]) for bound in BOUNDS if bound.workload in samples]
    if as_json:
        sys.stdout.write(report.as_json(figures, samples, quick=quick).decode())
    else:
        report.show(figures, samples, quick=quick)
    if wrong:
        raise Phase21Error("; ".join(map(str, wrong)))
    return 0
