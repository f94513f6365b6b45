"""Graders for themselves, outside a job: whether one can work here, and what it says of a sample."""

from collections.abc import Callable

from tunesmith.core.errors import InvalidRequest, NotAvailable
from tunesmith.core.ids import Ids
from tunesmith.domain.scope import Project
from tunesmith.domain.sight import GRADE, GRADE_ERRORS, UNSEEN, Sight
from tunesmith.graders.base import Grade, GraderNotAvailable, GraderRefused, Sample, Tools
from tunesmith.graders.grader import Grader


class Grading:
    """Checks graders and lets them grade, each with the tools of its project."""

    def __init__(self, *, tools: Callable[[Project], Tools], ids: Ids, sight: Sight = UNSEEN) -> None:
        self._tools = tools
        self._sight = sight
        self._ids = ids

    def sandbox_level(self, scope: Project) -> str:
        """Return the level of the sandbox of `python` graders (`full`, `reduced`, `none`), or `probing`."""
        return self._tools(scope).python.level() or "probing"

    def named(self, grader: Grader) -> Grader:
        """Return the grader with a name: its own, or a new one."""
        return grader if grader.name is not None else grader.model_copy(update={"name": self._ids.grader()})

    async def check(self, scope: Project, grader: Grader, *, param: str = "grader") -> None:
        """See to it that the grader can work on this server; `param` is where it stands in the request.

        Raises:
            InvalidRequest: it cannot; the error names the field and the way out.
            NotAvailable: this release cannot.
        """
        try:
            await grader.check(self._tools(scope))
        except GraderRefused as refused:
            told = NotAvailable if isinstance(refused, GraderNotAvailable) else InvalidRequest
            raise told(refused.message, param=refused.within(param).field) from refused

    async def run(self, scope: Project, grader: Grader, sample: Sample) -> Grade:
        """Check the grader and return its grade of one sample; what goes wrong with the sample is told in the grade.

        Raises:
            InvalidRequest, NotAvailable: as `check`.
        """
        await self.check(scope, grader)
        return await self.grade(scope, grader, sample)

    async def grade(self, scope: Project, grader: Grader, sample: Sample) -> Grade:
        """Return a checked grader's grade of one sample."""
        grade = await grader.grade(sample, self._tools(scope))
        self._sight.observe(GRADE, grade.seconds, grader.type, "run")
        for flag in grade.errors:
            self._sight.count(GRADE_ERRORS, grader.type, flag)
        return grade
