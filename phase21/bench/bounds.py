"""Which figures the benchmark gives, and what each must reach. Shown, never enforced: machines are noisy."""

from __future__ import annotations

from typing import Any

import msgspec


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """One figure: `value` and `reference` name what the workload measured, `judged` what is held against `must`.

    `judged` is `value` itself or a ratio to the reference; without `must` the figure is only shown. `stretch` is what would be
    better still.
    """

    workload: str
    label: str
    unit: str
    value: str
    reference: str | None = None
    judged: str | None = None
    must: float | None = None
    stretch: float | None = None
    at_least: bool = False


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A figure measured: medians over the repetitions. `ok` is None where nothing must be reached."""

    workload: str
    label: str
    unit: str
    measured: float
    reference: float | None
    judged: float | None
    must: float | None
    stretch: float | None
    at_least: bool
    relative: bool
    ok: bool | None


BOUNDS = (
    Bound(workload="throughput", label="durable no-op waves, against the reference loop", unit="tasks/s", value="tasks_per_s",
          reference="reference_tasks_per_s", judged="ratio", must=0.15, stretch=0.25, at_least=True),
    Bound(workload="throughput", label="the same, the whole cost of a task", unit="µs", value="us_per_task",
          reference="reference_us_per_task"),
    Bound(workload="growth", label="a wave ten times as large (100,000 against 10,000)", unit="s", value="wave_of_ten_times_s",
          reference="wave_s", judged="wave_ratio", must=11.0),
    Bound(workload="growth", label="1,000 agents against 4, each task", unit="µs", value="agents_1000_us_per_task",
          reference="agents_4_us_per_task", judged="agents_ratio", must=1.3),
    Bound(workload="growth", label="of which making the files of 1,000 agents by hand would take", unit="µs",
          value="files_us_per_task"),
    Bound(workload="growth", label="wave 200 against wave 2", unit="ms", value="wave_last_ms", reference="wave_2_ms",
          judged="late_ratio", must=1.1),
    Bound(workload="latency", label="wave of one task, submit to settled, p50", unit="ms", value="alone_p50_ms",
          reference="reference_p50_ms", judged="alone_ratio_p50", must=8.0, stretch=4.0),
    Bound(workload="latency", label="the same, p99", unit="ms", value="alone_p99_ms", reference="reference_p99_ms"),
    Bound(workload="latency", label="the same without a pause for files between waves, p50", unit="ms", value="p50_ms",
          reference="reference_p50_ms", judged="ratio_p50"),
    Bound(workload="latency", label="the same, p99", unit="ms", value="p99_ms", reference="reference_p99_ms", judged="ratio_p99"),
    Bound(workload="daemon", label="append to the queue file until wave_started, p50", unit="ms", value="reaction_p50_ms",
          judged="reaction_p50_ms", must=50.0),
    Bound(workload="daemon", label="idle daemon, of a core", unit="%", value="idle_cpu_percent", judged="idle_cpu_percent", must=0.5),
    Bound(workload="daemon", label="idle daemon with 4 agents, resident", unit="MiB", value="idle_mib", judged="idle_mib", must=50.0),
    Bound(workload="cold_start", label="--help, against a bare interpreter with asyncio, sqlite3, json", unit="ms", value="help_ms",
          reference="reference_ms", judged="help_ratio", must=2.5),
    Bound(workload="cold_start", label="run of one task to its result, against the same", unit="ms", value="run_ms",
          reference="reference_ms", judged="run_ratio", must=5.0),
    Bound(workload="agents_memory", label="each further agent, resident", unit="B", value="bytes_per_agent",
          judged="bytes_per_agent", must=8192.0),
    Bound(workload="waves_memory", label="1,000 waves behind against 100, resident", unit="MiB", value="many_mib",
          reference="few_mib", judged="waves_ratio", must=1.1),
    Bound(workload="recovery", label="start to READY, nothing behind", unit="s", value="empty_s"),
    Bound(workload="recovery", label="start to READY, 1,000,000 entries of closed waves", unit="s", value="behind_s",
          judged="behind_s", must=1.0),
    Bound(workload="recovery", label="start to READY, amid an open wave of 100,000 tasks", unit="s", value="open_wave_s",
          judged="open_wave_s", must=5.0),
    Bound(workload="messages", label="messages from task to task, against a bounded queue", unit="messages/s", value="plain_per_s",
          reference="bare_per_s", judged="plain_per_s", must=100_000.0, at_least=True),
    Bound(workload="messages", label="the same, durable, against the queue with its commits", unit="messages/s", value="durable_per_s",
          reference="least_per_s", judged="durable_per_s", must=20_000.0, at_least=True),
    Bound(workload="graphs", label="a workflow of 100,000 tasks in layers of 1,000, against a plain wave of as many", unit="s",
          value="graph_s", reference="wave_s", judged="graph_ratio", must=1.5),
    Bound(workload="cost", label="CPU of a no-op task", unit="µs", value="cpu_us"),
)  # fmt: skip
"""In the order in which they are shown. The labels speak of the full loads; `--quick` has smaller ones."""


def figure_of(bound: Bound, samples: list[dict[str, Any]]) -> Figure:
    """The figure as the medians of what a workload's repetitions measured."""
    measured = median(samples, bound.value)
    judged = median(samples, bound.judged) if bound.judged else None
    return Figure(
        workload=bound.workload,
        label=bound.label,
        unit=bound.unit,
        measured=measured,
        reference=median(samples, bound.reference) if bound.reference else None,
        judged=judged,
        must=bound.must,
        stretch=bound.stretch,
        at_least=bound.at_least,
        relative=bound.judged is not None and bound.judged != bound.value,
        ok=None if bound.must is None or judged is None else (judged >= bound.must if bound.at_least else judged <= bound.must),
    )


def median(samples: list[dict[str, Any]], name: str) -> float:
    """The median of one of the samples' values; the lower of the middle two where they are even in number."""
    ordered = sorted(float(sample[name]) for sample in samples)
    return ordered[(len(ordered) - 1) // 2]
