"""``simcse serve``: embeddings, similarity and search over HTTP, with a page to try them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simcse.cli.indexing import INDEX_URI, load_for, load_with_fingerprint
from simcse.cli.options import loading_options, precision_option
from simcse.errors import ConfigError, ResourceError

if TYPE_CHECKING:
    from simcse.index.uri import IndexUri
    from simcse.serve.settings import ServeConfig


@click.command("serve")
@click.option(
    "--model", metavar="NAME", help="Model to serve; by default the one of the index, or mini."
)
@click.option(
    "--index", "uri", type=INDEX_URI, help="Index to search: a folder or a PostgreSQL address."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 chooses a free one.",
)
@click.option("--name", help="Name of the model over HTTP; by default its name or folder.")
@click.option(
    "--keys-file",
    type=click.Path(path_type=Path),
    help="File with one API key a line, read again when it changes.",
)
@click.option("--writable", is_flag=True, help="Allow additions to the index by /v1/index/add.")
@click.option(
    "--results",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Evaluation folder whose models the page shows; repeatable.",
)
@precision_option("auto")
@loading_options
@click.argument("overrides", metavar="[serve.KEY=VALUE]...", nargs=-1)
def serve_command(
    model: str | None,
    uri: IndexUri | None,
    host: str,
    port: int,
    name: str | None,
    keys_file: Path | None,
    writable: bool,
    results: tuple[Path, ...],
    overrides: tuple[str, ...],
    **loading: Any,  # noqa: ANN401 - passed on by name
) -> None:
    """Serve a model, and an index if one is given, over HTTP, with a page at /.

    The API is OpenAI's (/v1/embeddings, /v1/models) with /v1/similarity, /v1/search and
    /v1/index/add; /health, /ready and /metrics are for operation. API keys come from the
    variable SIMCSE_API_KEYS (several, separated by commas) or a file, never from an option; an
    address that other machines can reach needs one. SIGTERM lets running requests finish.

    Limits are settings: serve.threads, serve.batch_tokens, serve.queue_tokens, serve.max_wait,
    serve.deadline, serve.body_bytes, serve.body_seconds, serve.header_seconds,
    serve.drain_seconds, serve.exit_seconds.

    \b
    Examples:
      simcse serve --index my-index
      SIMCSE_API_KEYS=$(openssl rand -hex 16) simcse serve --host 0.0.0.0 serve.max_wait=2
    """
    settings = _settings(
        overrides, host=host, port=port, keys_file=keys_file and str(keys_file), writable=writable
    )
    try:
        from simcse.serve.app import create_app
        from simcse.serve.run import serve, set_threads
    except ImportError as error:
        message = f"{error.name} is not installed: pip install 'simcse-next[serve,index]'"
        raise ResourceError(message) from error
    from simcse.index.uri import open_index

    set_threads(settings.threads)
    index = None if uri is None else open_index(uri, verify=True)
    if index is None:
        encoder, _ = load_with_fingerprint(model or "mini", **loading)
    else:
        encoder = load_for(index, model, **loading)
    loaded = model or (index.metadata.fingerprint.name if index else "mini")
    app = create_app(encoder, index, settings, name=name or _public_name(loaded), results=results)
    serve(app, settings)


def _settings(overrides: tuple[str, ...], **options: Any) -> ServeConfig:  # noqa: ANN401
    from simcse import config
    from simcse.serve.settings import KEYS_VARIABLE, ServeConfig, parse_keys

    sections = config.parse_overrides(overrides)
    values = sections.pop("serve", {})
    if sections or not isinstance(values, dict) or "keys" in values:
        raise ConfigError("expected serve.KEY=VALUE; API keys come from the environment or a file")
    keys = parse_keys(os.environ.get(KEYS_VARIABLE, ""))
    return config.build(ServeConfig, {**options, "keys": keys, **values}, section="serve.")


def _public_name(name: str) -> str:
    """Return the name of a model over HTTP: of a folder only its name, not its path."""
    is_folder = Path(name).expanduser().is_dir()
    return Path(name).expanduser().resolve().name if is_folder else name
