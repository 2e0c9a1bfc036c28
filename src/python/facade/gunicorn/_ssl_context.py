"""The context of the ssl_context hook: its options for the server, and the context itself for classes that need one.

The server's TLS is not that of Python's `ssl`, so it cannot use the context. It takes over the options: the
certificates from the calls that loaded them, because a context does not return them, and the rest from its attributes.
It must not know what the server does with them.
"""

import os
import ssl

from gunicorn.errors import ConfigError

_OURS = {"tls12": (ssl.TLSVersion.TLSv1_2, ssl.OP_NO_TLSv1_2), "tls13": (ssl.TLSVersion.TLSv1_3, ssl.OP_NO_TLSv1_3)}
_CRL_FLAGS = ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF | ssl.VerifyFlags.VERIFY_CRL_CHECK_CHAIN


def read(cfg, hook):
    """Calls `hook` and returns the options of its context as plain values. ConfigError for unsupported ones."""
    with _Recorder() as recorder:
        context = hook(cfg, lambda: _default_context(cfg))
    if not isinstance(context, ssl.SSLContext):
        raise ConfigError(f"ssl_context returned {context!r}, which is no ssl.SSLContext")
    pairs, ciphers = recorder.pairs.get(id(context)), recorder.ciphers.get(id(context))
    if not pairs:
        raise ConfigError("the certificate of the context that ssl_context returned cannot be told: call its "
                          "load_cert_chain() within the hook, or set certfile and keyfile and leave the hook out")
    if context.sni_callback is not None:
        raise ConfigError("the sni_callback of a context cannot be called here: name the certificate of each host "
                          "in tls_certificates instead")
    if context.verify_flags & _CRL_FLAGS:
        raise ConfigError("revocation lists cannot be checked here: take VERIFY_CRL_CHECK_* from the context, and let "
                          "a proxy in front check them")
    authorities = "".join(map(ssl.DER_cert_to_PEM_cert, context.get_ca_certs(binary_form=True)))
    speaks = {name: _speaks(context, *version) for name, version in _OURS.items()}
    if not any(speaks.values()):
        raise ConfigError("the context of ssl_context speaks neither TLS 1.2 nor 1.3, and there is no other here")
    mode = int(context.verify_mode)
    return {"pairs": pairs, "ciphers": ciphers, "authorities": authorities, "verify_mode": mode, **speaks}


def make(cfg):
    """The context for a worker class that serves by itself, from the hook if there is one."""
    return cfg.ssl_context(cfg, lambda: _default_context(cfg))


def _default_context(cfg):
    """As gunicorn makes it."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=cfg.ca_certs)
    context.load_cert_chain(certfile=cfg.certfile, keyfile=cfg.keyfile)
    context.verify_mode = cfg.cert_reqs
    if cfg.ciphers:
        context.set_ciphers(cfg.ciphers)
    return context


def _speaks(context, version, switched_off):
    if context.options & switched_off:
        return False
    lowest, highest = context.minimum_version, context.maximum_version
    # The two ends of the scale are negative numbers.
    return ((lowest == ssl.TLSVersion.MINIMUM_SUPPORTED or lowest <= version)
            and (highest == ssl.TLSVersion.MAXIMUM_SUPPORTED or highest >= version))


class _Recorder:
    """Records the calls of contexts' methods while it is entered."""

    def __init__(self):
        self.pairs = {}
        self.ciphers = {}
        self._contexts = []

    def __enter__(self):
        # Inherited from `_ssl._SSLContext`: an attribute of the subclass hides it, and is removed afterwards.
        plain_load, plain_set = ssl.SSLContext.load_cert_chain, ssl.SSLContext.set_ciphers

        def load_cert_chain(context, certfile, keyfile=None, password=None):
            plain_load(context, certfile, keyfile, password)
            # Kept alive, so that no other context gets the same id.
            self._contexts.append(context)
            self.pairs.setdefault(id(context), []).append((_path(certfile), keyfile and _path(keyfile)))

        def set_ciphers(context, ciphers):
            plain_set(context, ciphers)
            self._contexts.append(context)
            self.ciphers[id(context)] = ciphers

        ssl.SSLContext.load_cert_chain, ssl.SSLContext.set_ciphers = load_cert_chain, set_ciphers
        return self

    def __exit__(self, *_):
        del ssl.SSLContext.load_cert_chain, ssl.SSLContext.set_ciphers


def _path(path):
    return os.fsdecode(path)
