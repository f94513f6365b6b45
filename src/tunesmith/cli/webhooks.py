"""`tunesmith webhooks`: the endpoints of a project, through a running server."""

from typing import Annotated, Final

import typer

from tunesmith.cli.client import DEFAULT_BASE_URL, BaseUrl, Client, segment
from tunesmith.cli.output import AsJson, print_json, table

PATH: Final = "/v1/webhook_endpoints"
OURS: Final = "/tunesmith/v1"
EVENT_TYPES: Final = ("fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled")

app = typer.Typer(help="Tell other servers how jobs end: endpoints, their secrets, what was sent.", no_args_is_help=True)

EndpointId = Annotated[str, typer.Argument(metavar="ENDPOINT", help="The endpoint's id, whep_….")]


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    url: Annotated[str, typer.Argument(help="The https URL that is told.")],
    event: Annotated[list[str] | None, typer.Option(help="An event to tell of; may be repeated. All if left out.")] = None,
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Make an endpoint, and print its secret, which is shown this once."""
    with Client(base_url) as client:
        made = client.call("POST", PATH, {"name": name, "url": url, "event_types": event or list(EVENT_TYPES)})
    if as_json:
        print_json(made)
        return
    typer.echo(f"{made['id']} is told of {', '.join(made['event_types'])}.")
    typer.echo(f"Its secret, shown this once: {made['signing_secret']}")


@app.command("list")
def list_endpoints(as_json: AsJson = False, base_url: BaseUrl = DEFAULT_BASE_URL) -> None:
    """List the endpoints, newest first."""
    with Client(base_url) as client:
        found = client.call("GET", f"{PATH}?limit=100")
    if as_json:
        print_json(found)
        return
    rows: list[list[str]] = []
    for endpoint in found["data"]:
        state = endpoint["status"] + (f" ({endpoint['status_details']})" if endpoint["status_details"] else "")
        rows.append([endpoint["id"], endpoint["name"], endpoint["url"], state, ", ".join(endpoint["event_types"])])
    table(["id", "name", "url", "status", "events"], rows)


@app.command()
def remove(endpoint: EndpointId, as_json: AsJson = False, base_url: BaseUrl = DEFAULT_BASE_URL) -> None:
    """Delete an endpoint."""
    with Client(base_url) as client:
        gone = client.call("DELETE", _at(endpoint))
    print_json(gone) if as_json else typer.echo(f"{endpoint} is removed.")


@app.command()
def rotate(
    endpoint: EndpointId,
    keep_old: Annotated[bool, typer.Option(help="Let the old secret sign too for 24 hours.")] = True,
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Give an endpoint a new secret, and print it, which is shown this once."""
    with Client(base_url) as client:
        body = {"keep_old_secret_active_for_24_hours": keep_old}
        made = client.call("POST", f"{_at(endpoint)}/rotate_secret", body)
    print_json(made) if as_json else typer.echo(f"The new secret, shown this once: {made['signing_secret']}")


@app.command("test")
def send_sample(
    endpoint: EndpointId,
    event: Annotated[str, typer.Option(help="The event to send a sample of.")] = EVENT_TYPES[0],
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Send a sample event at once, and print what is answered."""
    with Client(base_url) as client:
        told = client.call("POST", f"{_at(endpoint)}/test", {"event_type": event})
    print_json(told) if as_json else typer.echo(f"{endpoint} answers {told['status_code']}.")


@app.command()
def deliveries(endpoint: EndpointId, as_json: AsJson = False, base_url: BaseUrl = DEFAULT_BASE_URL) -> None:
    """List what was and is to be sent to an endpoint, the newest event first."""
    with Client(base_url) as client:
        found = client.call("GET", f"{OURS}/webhook_endpoints/{segment(endpoint)}/deliveries?limit=100")
    if as_json:
        print_json(found)
        return
    rows: list[list[str]] = []
    for line in found["data"]:
        event = line["event"]
        tries = f"{line['tries']} {'try' if line['tries'] == 1 else 'tries'}"
        rows.append([line["id"], event["type"], event["data"]["id"], line["status"], tries, line["reason"] or ""])
    table(["id", "event", "job", "status", "tries", "reason"], rows)


@app.command()
def redeliver(
    delivery: Annotated[str, typer.Argument(metavar="DELIVERY", help="The delivery's id, wh_….")],
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Send an event again, under the id that it had."""
    with Client(base_url) as client:
        told = client.call("POST", f"{OURS}/webhook_deliveries/{segment(delivery)}/redeliver")
    print_json(told) if as_json else typer.echo(f"{delivery} is sent again.")


def _at(endpoint: str) -> str:
    return f"{PATH}/{segment(endpoint)}"
