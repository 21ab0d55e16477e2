"""The log events about credentials."""

from busyapi.telemetry.log_event import NO_ACTION, LogEvent

AUTH_EVENTS = (
    LogEvent(
        "credentials_refused",
        "warning",
        ("address", "requests"),
        "`requests` requests got a 429 because their address or network had sent too many without"
        " a valid credential or its scope; the last came from `address`",
        "find the client by its address: an old token, or a client that guesses tokens",
    ),
    LogEvent(
        "sequential_lookup",
        "warning",
        ("credential", "address"),
        "a client that has asked for many ids close to each other asked for one more; `credential`"
        " is the name of its credential, `address` its address or network",
        "find out whether this client may enumerate ids: `BusyapiSequentialReads`",
    ),
    LogEvent(
        "credentials_reloaded",
        "info",
        ("source", "credentials"),
        "the credentials changed: `source` is `file` (BUSYAPI_TOKENS_FILE) or `keys`"
        " (BUSYAPI_JWT_KEYS); `credentials` is the number of credentials or keys. Those that are"
        " gone are refused from now on",
        NO_ACTION,
    ),
    LogEvent(
        "credentials_not_reloaded",
        "error",
        ("source", "detail"),
        "the credentials changed and cannot be used, or the keys cannot be fetched; the last good"
        " ones stay in use, so a revocation has no effect. While the file cannot be read, they"
        " are used for 5 minutes, the keys for BUSYAPI_JWT_KEEP_KEYS",
        "correct what `detail` names; `credentials_reloaded` follows within seconds",
    ),
    LogEvent(
        "credentials_all_revoked",
        "error",
        ("file",),
        "BUSYAPI_TOKENS_FILE has no entry, or could not be read for 5 minutes: no token and no"
        " client certificate is accepted",
        "if this is not intended, restore the file: it is read again within seconds",
    ),
    LogEvent(
        "token_file_format_old",
        "warning",
        ("file",),
        "BUSYAPI_TOKENS_FILE has lines of rights and token, which the next release does not read",
        "write a TOML table for each token: `docs/how-to/authentication.md`",
    ),
    LogEvent(
        "rates_local",
        "warning",
        ("partition", "detail"),
        "Redis did not answer, or refused, when this process asked for a part of clients' rates."
        " It now allows each client its own share: the rate at which that client sent to it, at"
        " least a tenth of the client's rate",
        "check Redis; if `detail` names the command `time`, grant `+time` to the API's user",
    ),
    LogEvent(
        "rates_shared",
        "info",
        ("partition",),
        "Redis answers again: the rates of credentials and tenants hold over all processes",
        NO_ACTION,
    ),
)
