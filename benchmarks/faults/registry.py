"""Every fault, by its name; a new one stands in the page and in the tests by itself."""

from benchmarks.faults import clock, disk, frames, index, model, postgres, processes, slow
from benchmarks.faults.running import Fault

FAULTS: dict[str, Fault] = {
    fault.name: fault
    for module in (processes, disk, postgres, index, model, clock, slow, frames)
    for fault in module.FAULTS
}
"""In the order of the page."""
