"""Every setting of the server in one class: flags first, then `TUNESMITH_*`, then `tunesmith.toml`, then the default."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from tunesmith.core.address import is_loopback

MEGABYTE = 1024 * 1024


class Settings(BaseSettings):
    """The server's settings; `tunesmith serve --help` shows the flags, `tunesmith.toml` uses the field names."""

    model_config = SettingsConfigDict(
        env_prefix="TUNESMITH_", toml_file="tunesmith.toml", extra="forbid", use_attribute_docstrings=True
    )

    host: str = "127.0.0.1"
    """Address to bind; on any but a loopback address callers need keys."""
    port: int = Field(default=8000, ge=0, le=65535)
    """TCP port; 0 takes a free one."""
    auth: Literal["auto", "on", "off"] = "auto"
    """Whether callers need keys: `auto` on every address but loopback, `on` everywhere, `off` on loopback alone."""
    admin_key: str | None = Field(default=None, min_length=20, max_length=256, pattern=r"^[!-~]+$", repr=False)
    """An admin key, of 20 characters or more, which is one as long as it stands here."""
    data_dir: Path = Path("tunesmith-data")
    """Folder of everything the server keeps."""
    database_url: str | None = None
    """SQLAlchemy URL; None is SQLite in the data folder."""
    default_base: str | None = None
    """Base model that answers for any unknown base name; None refuses unknown names."""
    organization_slug: str = "tunesmith"
    """The organisation's name, as in tuned model names, `ft:BASE:SLUG:SUFFIX:ID`, and another name for `org-default`."""
    training_slots: int = Field(default=1, ge=1)
    """Training attempts that run at the same time."""
    training_slots_per_project: int | None = Field(default=None, ge=1)
    """Of those, the most that one project may have; None sets no such limit."""
    queued_jobs_per_project: int | None = Field(default=None, ge=0)
    """Jobs of one project that may wait for their validation or training; None sets no such limit."""
    files_per_project: int | None = Field(default=None, ge=0)
    """Files that one project may have; None sets no such limit."""
    file_bytes_per_project: int | None = Field(default=None, ge=0)
    """Bytes that all files of one project may have together; None sets no such limit."""
    requests_per_minute: int | None = Field(default=None, ge=0)
    """Requests that one project may ask of one base model, and all that is tuned on it, in a minute; None sets no limit."""
    tokens_per_minute: int | None = Field(default=None, ge=0)
    """Tokens, read and written, that one project may ask of one base model in a minute; None sets no limit."""
    validation_slots: int = Field(default=2, ge=1)
    """Validations that run at the same time; they take no training slot."""
    training_threads: int | None = Field(default=None, ge=1)
    """CPU threads of one training attempt; None is 1 for small bases (under 50 M parameters), else cores by slots."""
    training_processes: int = Field(default=1, ge=1, le=64)
    """Processes of one training attempt, each with a GPU of its own where there are any; they share every step."""
    training_spread: bool = False
    """Spread the layers of a base over the processes of a training, for bases that one GPU does not hold."""
    sampler_threads: int | None = Field(default=None, ge=1)
    """CPU threads of a sampler; None is half of the cores, at least one."""
    warm_spares: int = Field(default=1, ge=0)
    """Trainers kept ready for the next jobs, at most `training_slots`, and with them one for validation; 0 keeps none."""
    warm_spares_max_bytes: int = Field(default=2000 * MEGABYTE, ge=0)
    """Memory that all spares together may hold; one that passes it is let go."""
    max_attempts: int = Field(default=3, ge=1)
    """Attempts of one job before a lost worker fails it."""
    lease_s: float | None = Field(default=None, gt=0)
    """Seconds without the server after which a worker ends itself; None is 10 with PostgreSQL and never with SQLite."""
    drain: bool = False
    """Pause running jobs before the server ends, and resume them at its next start; without it they run on meanwhile."""
    max_file_bytes: int = Field(default=512 * MEGABYTE, ge=1)
    """Largest file accepted by `POST /v1/files`."""
    max_upload_bytes: int = Field(default=8192 * MEGABYTE, ge=1)
    """Largest file that comes in parts, by `POST /v1/uploads`."""
    max_line_bytes: int = Field(default=64 * MEGABYTE, ge=1)
    """Largest line of a training file."""
    max_body_bytes: int = Field(default=32 * MEGABYTE, ge=1)
    """Largest JSON body."""
    slow_client_s: float = Field(default=30.0, gt=0)
    """Seconds for the head of a request, and for 500 times as many bytes of a body or answer; who is slower is cut off."""
    responses_kept_days: int | None = Field(default=30, ge=1)
    """Days for which a stored response can be read and gone on from; None keeps it until it is deleted."""
    results_base64: bool = False
    """Serve result files base64-encoded, as OpenAI once did."""
    sampler_warm: bool = True
    """Start a sampler before the first question: for the default base at the start, for a job's base when it trains."""
    sampler_idle_s: float | None = None
    """Seconds after which an unused sampler is unloaded; None keeps it."""
    sampler_queue: int = Field(default=256, ge=1)
    """Requests that may wait for a sampler's first token; the next one is answered 429 with `Retry-After`."""
    sandbox_reduced: bool = True
    """Let `python` graders run where the host gives their sandbox no namespaces, the level `reduced`."""
    judge_requests: int = Field(default=8, ge=1)
    """Questions of graders that one server upstream is sent at the same time; further ones wait. Chat is not held back."""
    judge_timeout_s: float = Field(default=300.0, gt=0)
    """Seconds for one answer of a server upstream, with all retries; in chat for its first word, then for each next one."""
    vllm_adapters: int = Field(default=16, ge=1)
    """Adapters that one vLLM server keeps loaded for this server; the least used one beyond that is unloaded."""
    vllm_python: Path | None = None
    """Python of an environment that has vLLM, for bases whose vLLM server is started here; None starts none."""
    vllm_flags: str | None = None
    """Further flags of vLLM servers that are started here, as on a command line, such as `--gpu-memory-utilization 0.5`."""
    preflight_seconds: float = Field(default=30.0, gt=0, le=600)
    """Seconds for which a dry run of a job reads its files, and tries its grader; what is left then is reckoned."""
    training_price: float | None = Field(default=None, ge=0)
    """Price of a million trained tokens that dry runs tell the cost by; None tells none."""
    training_currency: str = Field(default="USD", min_length=1, max_length=16)
    """What that price is in."""
    image_hosts: str | None = None
    """HOST or HOST:PORT, with commas between: where graders may fetch images from although it is no public address."""
    webhook_hosts: str | None = None
    """HOST or HOST:PORT, with commas between: where webhooks may go although it is no public address or not https."""
    metrics_public: bool = False
    """Let everybody read `GET /metrics`, where it needs an admin key else."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is logged; `info` has a line for every request."""
    log_format: Literal["auto", "json", "text"] = "auto"
    """Form of the log on standard error; `auto` is text on a terminal and one JSON object a line elsewhere."""
    wandb_mode: Literal["online", "offline"] = "online"
    """Whether runs of Weights & Biases are sent, or kept in the data folder for `wandb sync`, which needs no key here."""
    tensorboard_dir: Path | None = None
    """Folder that every job's metrics are written to for TensorBoard; None writes none."""
    mlflow_url: str | None = None
    """Tracking URI of MLflow that every job is told to; None tells none."""
    trackio_dir: Path | None = None
    """Folder of trackio that every job is told to; None tells none."""
    hf_token: str | None = Field(default=None, validation_alias="HF_TOKEN")
    """Token for gated repositories of the Hugging Face hub."""

    @property
    def needs_keys(self) -> bool:
        """Say whether callers need keys."""
        return self.auth == "on" or (self.auth == "auto" and not is_loopback(self.host))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings passes all four by name
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the same
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: flags, environment, file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)
