"""The route that gives the files of results: sound, also while it is made, picture and JSON."""

from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route

from open_musiclm.app.history import History
from open_musiclm.app.jobs import Job

PREFIX = "results"
_TYPES = {"wav": "audio/wav", "png": "image/png", "json": "application/json"}


def address(job: Job, number: int, kind: str) -> str:
    """Where sample `number` (from 1 on) of a job is served, relative to the page."""
    return f"{PREFIX}/{job.id}/{number}.{kind}"


def files_route(history: History) -> Route:
    """GET /results/{id of the job}/{number of the sample}.{wav, png or json}."""

    def give(request: Request) -> Response:
        job, number, kind = (request.path_params[name] for name in ("job", "number", "kind"))
        found = history.find(job)
        if found is None or kind not in _TYPES or not 1 <= number <= len(found.sounds):
            return Response("no such result; older ones are removed", 404)
        if number <= len(found.results):
            path = found.results[number - 1].sound.with_suffix(f".{kind}")
            return FileResponse(path, media_type=_TYPES[kind])
        if kind == "wav":
            live = found.sounds[number - 1]
            return StreamingResponse(live.follow(), media_type=_TYPES[kind], headers={"Cache-Control": "no-store"})
        return Response("not finished yet", 404)

    return Route(f"/{PREFIX}/{{job}}/{{number:int}}.{{kind}}", give)
