"""Dead letters: listed, shown and tried again, as `guard dead-letters` has it."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from guard.api.access import BoundedRoute, guard_of, require_token, scope_of
from guard.api.answers import DeadLetterAnswer, DeadLetters
from guard.api.problems import USUAL, refusals
from guard.flow.principals import Principal

router = APIRouter(
    prefix="/dead-letters",
    tags=["operation"],
    dependencies=[Depends(require_token)],
    route_class=BoundedRoute,
    responses=USUAL,
)
Caller = Annotated[Principal, Depends(require_token)]


@router.get("", responses=refusals(400))
def list_dead_letters(
    request: Request, limit: Annotated[int, Query(ge=1, le=1000)] = 50
) -> DeadLetters:
    """List dead letters, the newest first."""
    from guard.flow import retry

    rows = retry.listed(guard_of(request), limit, scope_of(request))
    found = [DeadLetterAnswer.model_validate(one.to_dict()) for one in rows]
    return DeadLetters(dead_letters=found)


@router.get("/{letter_id}", responses=refusals(404))
def show_dead_letter(letter_id: str, request: Request) -> DeadLetterAnswer:
    """Show one dead letter, by its id or the first 4 characters of it or more."""
    from guard.flow import retry

    found = retry.show(guard_of(request), letter_id, scope_of(request))
    return DeadLetterAnswer.model_validate(found.to_dict())


@router.post("/{letter_id}/retry", responses=refusals(403, 404, 409))
def retry_dead_letter(letter_id: str, request: Request, who: Caller) -> DeadLetterAnswer:
    """Have a message handled again, as an operator, once its cause is mended."""
    from guard.flow import retry

    tried = retry.retry(guard_of(request), who, letter_id)
    return DeadLetterAnswer.model_validate(tried.to_dict())
