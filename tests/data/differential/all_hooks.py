"""Every server hook, as a config imports them: each says in the log that it was called, where and with what."""


def describe(server):
    return f"num_workers={server.num_workers} workers={len(server.WORKERS)}"


def nworkers_changed(server, new, old):
    server.log.info("HOOK nworkers_changed new=%s old=%s", new, old)


def on_starting(server):
    server.log.info("HOOK on_starting %s proc_name=%s", describe(server), server.cfg.proc_name)


def on_reload(server):
    server.log.info("HOOK on_reload num_workers=%s", server.num_workers)


def when_ready(server):
    server.log.info("HOOK when_ready %s listeners=%s", describe(server), len(server.LISTENERS))


def pre_fork(server, worker):
    server.log.info("HOOK pre_fork age=%s pid=%s booted=%s", worker.age, worker.pid, worker.booted)


def post_fork(server, worker):
    seen = (worker.age, worker.booted, worker.alive, worker.nr)
    worker.log.info("HOOK post_fork age=%s booted=%s alive=%s nr=%s", *seen)


def post_worker_init(worker):
    seen = (type(worker.wsgi).__name__, len(worker.sockets), worker.timeout)
    worker.log.info("HOOK post_worker_init %s sockets=%s timeout=%s", *seen)


def worker_int(worker):
    worker.log.info("HOOK worker_int")


def worker_abort(worker):
    worker.log.info("HOOK worker_abort")


def pre_exec(server):
    server.log.info("HOOK pre_exec")


def pre_request(worker, req):
    worker.log.info("HOOK pre_request %s %s %s %s %s", req.method, req.uri, req.path, req.query, req.version)
    worker.log.info("HOOK headers %s scheme=%s close=%s", req.headers, req.scheme, req.should_close())


def post_request(worker, req, environ, resp):
    worker.log.info("HOOK post_request %s %s", req.method, environ.get("PATH_INFO"))
    worker.log.info("HOOK resp %s %s %s", resp.status, resp.sent, [name for name, value in resp.headers])


def child_exit(server, worker):
    server.log.info("HOOK child_exit age=%s", worker.age)


def worker_exit(server, worker):
    worker.log.info("HOOK worker_exit alive=%s", worker.alive)


def on_exit(server):
    server.log.info("HOOK on_exit workers=%s", len(server.WORKERS))
