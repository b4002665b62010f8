"""How long to train, on which batches, and when to stop."""

import dataclasses

from rnn_dynamics.arguments import whole_number


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How long to train, on which batches, and when to stop; what an update does is the `Recipe`'s.

    Attributes:
        steps: number of batches, which is that of updates but for `accumulate` and `truncation`.
        batch_size: B.
        seed: of the order of the batches, and of weight noise.
        accumulate: batches whose gradients are averaged to one update; what is left at the end makes none.
        truncation: truncated backpropagation through time (Williams and Peng 1990): steps of time that a gradient goes
            back at most, <= T. A batch of a many-to-many task is cut into windows of so many steps, one after the other
            a batch of its own that starts from the carry of the one before; of a many-to-one task the steps before the
            last so many are read without a gradient. None goes back to the start.
        evaluate_every: batches between two evaluations of the task's metric; None evaluates never.
        evaluation_split: on which split.
        stop_when_solved: stop after the first evaluation whose metric the task calls solved.

    Raises:
        ValueError: a number out of range, or a stop without evaluations.
    """

    steps: int
    batch_size: int
    seed: int = 0
    accumulate: int = 1
    truncation: int | None = None
    evaluate_every: int | None = None
    evaluation_split: str = "test"
    stop_when_solved: bool = False

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch_size", 1), ("seed", 0), ("accumulate", 1)):
            whole_number(name, getattr(self, name), least=least)
        for name in ("truncation", "evaluate_every"):
            if getattr(self, name) is not None:
                whole_number(f"{name}, if not None,", getattr(self, name), least=1)
        if self.steps < self.accumulate:
            raise ValueError(f"steps must be at least accumulate = {self.accumulate} for one update, got {self.steps}")
        if self.stop_when_solved and self.evaluate_every is None:
            raise ValueError("stop_when_solved needs evaluate_every, got None: nothing would ever be evaluated")
