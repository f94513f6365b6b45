"""What both sides are measured by: our engine, held-out files, and the grader that our side trains with."""

import statistics
from pathlib import Path
from typing import Any

from benchmarks.learning.works import BASE, BETA, CONTEXT, EXAMPLES, N_MOST_SAMPLED, Row, Work, grader, read_rows

#: Samples of each held-out prompt.
N_DRAWN = 8
#: Documents that are scored in one pass.
N_TOGETHER = 16
Figures = dict[str, float]


class Rewards:
    """The rewards of answers, by the grader that our side trains with."""

    def __init__(self, work: Work) -> None:
        from pydantic import TypeAdapter

        from tunesmith.core.clock import SystemClock
        from tunesmith.graders.batch import Batch
        from tunesmith.graders.grader import Grader
        from tunesmith.worker.grading import open_grading

        self._loop = open_grading(SystemClock(), Path("no-packages"), sandbox_reduced=True)
        parsed: Any = TypeAdapter(Grader).validate_python(grader(work))
        self._batch = Batch(parsed, self._loop.tools, n_at_once=16)

    def __call__(self, texts: list[str], items: list[Row]) -> list[float]:
        """Return a reward for each text."""
        from tunesmith.graders.base import Sample

        samples = [Sample.of_text(text, item) for text, item in zip(texts, items, strict=True)]
        return [float(grade.score or 0.0) for grade in self._loop.run(self._batch.grade(samples))]


class Scorer:
    """Our engine with one base, into which adapters are put."""

    def __init__(self) -> None:
        import torch

        from tunesmith.data.render import Renderer
        from tunesmith.lm.last_layer import trim
        from tunesmith.lm.load import load
        from tunesmith.lm.lora import LoraModel
        from tunesmith.worker.compose import open_sampler

        torch.set_num_threads(1)
        self._base = load(BASE)
        self._lora = LoraModel(self._base.model)
        trim(self._base.decoder, self._lora.route)
        self._renderer = Renderer.load(BASE)
        self._sampler = open_sampler(
            self._base, self._lora, slot=0, start_slot=None, context_length=CONTEXT, stop_ids=self._renderer.stop_ids,
            folder=BASE,
        )  # fmt: skip

    def figures(self, work: Work, adapter: Path | None) -> Figures:
        """Return what is measured of an adapter on what was held out; None is the bare base."""
        from tunesmith.lm.adapter_file import from_folder

        fresh = self._lora.fresh(seed=0)  # changes nothing
        self._lora.place(0, fresh if adapter is None else from_folder(adapter, self._lora))
        path = EXAMPLES / work.folder / work.held_out
        found = self._rewards(work, path) if work.method == "reinforcement" else self._losses(work, path)
        return dict(zip(work.measures, found, strict=True))

    def _losses(self, work: Work, path: Path) -> tuple[float, ...]:
        import torch.nn.functional as F

        from tunesmith.engine.rows import RowFile
        from tunesmith.methods.method import METHODS

        file = RowFile(
            path, method=METHODS[work.method](), renderer=self._renderer, max_tokens=CONTEXT, max_line_bytes=10**6
        )
        documents = [document for row in range(len(file)) for document in file[row]]
        sums, n_trained = self._sums(documents, 0)
        if work.method == "supervised":
            return (float(-sums.sum() / n_trained.sum()),)
        gains = sums - self._sums(documents, None)[0]
        margins = BETA * (gains[0::2] - gains[1::2])
        nll = -(sums[0::2] / n_trained[0::2]).mean()
        return float(-F.logsigmoid(margins).mean()), float((margins > 0).float().mean()), float(nll)

    def _sums(self, documents: list[Any], slot: int | None) -> tuple[Any, Any]:
        """Return of each branch the sum of its log-probabilities and its trained tokens."""
        import torch

        from tunesmith.engine.batch import join, pack
        from tunesmith.lm.score import score

        sums: list[Any] = []
        for start in range(0, len(documents), N_TOGETHER):
            micro = pack(documents[start : start + N_TOGETHER])
            with torch.no_grad():
                scores = score(self._base, self._lora, join([(slot, micro)]).packed)
            sums += [branch.sum() for branch in scores.logp_N.split(list(micro.n_trained))]
        return torch.stack(sums).cpu(), torch.tensor([n for document in documents for n in document.n_trained])

    def _rewards(self, work: Work, path: Path) -> tuple[float, ...]:
        rows, rewards = read_rows(path), Rewards(work)
        return tuple(self._reward(rows, rewards, n, temperature) for n, temperature in ((N_DRAWN, 1.0), (1, 0.0)))

    def _reward(self, rows: list[Row], rewards: Rewards, n: int, temperature: float) -> float:
        from tunesmith.domain.ports import Ask, Drawn

        drawn: list[Drawn] = []
        prompts = [self._renderer.prompt(row["messages"]) for row in rows]
        asks = [Ask(prompt, n, N_MOST_SAMPLED, seed=i, temperature=temperature) for i, prompt in enumerate(prompts)]
        self._sampler.draw(asks, drawn.append, stop=lambda: False)
        texts = [self._renderer.decode(each.tokens) for each in drawn]
        return statistics.fmean(rewards(texts, [{"answer": rows[each.ask]["answer"]} for each in drawn]))
