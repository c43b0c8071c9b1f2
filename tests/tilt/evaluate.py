"""Evaluates the Tiltfile with a Starlark interpreter. The built-in functions record their calls.

    evaluate.py TILTFILE CONTEXT     prints {"calls": [[NAME, {ARGUMENT: VALUE}]], "error": null or a message}

The functions have Tilt's signatures, so that a misspelt argument is refused. Functions that the Tiltfile does not use
are missing.
"""

import json
import pathlib
import sys

import starlark

CALLS = []


def record(name, arguments):
    CALLS.append([name, arguments])
    return {"function": name, **arguments}


def allow_k8s_contexts(contexts):
    record("allow_k8s_contexts", locals())


def k8s_context():
    return sys.argv[2]


def fail(msg):
    raise RuntimeError(msg)


def ci_settings(k8s_grace_period="", timeout="30m", readiness_timeout="5m"):
    record("ci_settings", locals())


def local(command, quiet=False, command_bat="", echo_off=False, env={}, dir="", stdin=None):
    record("local", locals())


def local_resource(
    name, cmd, deps=[], trigger_mode="auto", resource_deps=[], ignore=[], auto_init=True, serve_cmd="", cmd_bat="",
    serve_cmd_bat="", allow_parallel=False, links=[], labels=[], env={}, serve_env={}, readiness_probe=None, dir="",
    serve_dir="",
):  # fmt: skip
    record("local_resource", locals())


def docker_build(
    ref, context, build_args={}, dockerfile="Dockerfile", dockerfile_contents=None, live_update=[],
    match_in_env_vars=False, ignore=[], only=[], entrypoint=[], target="", ssh="", network="", secret="",
    extra_tag="", container_args=None, cache_from=[], pull=False, platform="", extra_hosts=[],
):  # fmt: skip
    record("docker_build", locals())


def sync(local_path, remote_path):
    return record("sync", locals())


def fall_back_on(files):
    return record("fall_back_on", locals())


def kustomize(pathToDir, kustomize_bin=None, flags=[]):
    return record("kustomize", locals())


def k8s_yaml(yaml, allow_duplicates=False):
    record("k8s_yaml", locals())


def k8s_kind(kind, api_version=None, image_json_path=[], image_object={}, pod_readiness=""):
    record("k8s_kind", locals())


def port_forward(local_port, container_port=None, name=None, link_path=None, host=None):
    return record("port_forward", locals())


def link(url, name=None):
    return record("link", locals())


def k8s_resource(
    workload="", new_name="", port_forwards=[], extra_pod_selectors=[], trigger_mode="auto", resource_deps=[],
    objects=[], auto_init=True, pod_readiness="", links=[], labels=[], discovery_strategy="",
):  # fmt: skip
    record("k8s_resource", locals())


def main():
    module = starlark.Module()
    module["TRIGGER_MODE_MANUAL"] = "manual"
    functions = [
        allow_k8s_contexts, k8s_context, fail, ci_settings, local, local_resource, docker_build, sync, fall_back_on,
        kustomize, k8s_yaml, k8s_kind, port_forward, link, k8s_resource,
    ]  # fmt: skip
    for function in functions:
        module.add_callable(function.__name__, function)
    dialect = starlark.Dialect.standard()
    dialect.enable_top_level_stmt = True
    error = None
    try:
        program = starlark.parse(sys.argv[1], pathlib.Path(sys.argv[1]).read_text(), dialect)
        # There is no loader, so `load` fails.
        starlark.eval(module, program, starlark.Globals.standard())
    except starlark.StarlarkError as failure:
        error = str(failure)
    print(json.dumps({"calls": CALLS, "error": error}))


main()
