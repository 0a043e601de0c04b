"""The front's configuration: what the text says, and that the HAProxy we ship takes it."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from reasonserve.cli.main import app
from reasonserve.config import ServiceConfig
from reasonserve.errors import StartupError
from reasonserve.front import loopback
from reasonserve.front.haproxy import Front, render
from reasonserve.front.process import check, front_of, haproxy_binary, write_bundle

FRONT = Front(
    bind="0.0.0.0:9443",
    certificate="/etc/tls/tls.crt",
    grpc_server="127.0.0.1:9000",
    http_server="127.0.0.1:8000",
    max_bytes=1234,
)


def front(**changes):
    return render(Front(**{name: getattr(FRONT, name) for name in FRONT.__slots__} | changes))


def test_clients_need_a_certificate_only_where_an_authority_is_named():
    assert "verify" not in render(FRONT)
    mutual = front(client_ca="/etc/tls/ca.crt")
    assert "ca-file /etc/tls/ca.crt verify required" in mutual
    # What a client sends under the name goes, before it is set.
    drop, put = mutual.index("del-header x-client-cn"), mutual.index("set-header x-client-cn")
    assert drop < put
    assert "del-header x-client-cn" in render(FRONT)


def test_names_are_resolved_again_and_addresses_not_at_all():
    assert "resolvers" not in render(FRONT)
    named = front(grpc_server="serve.namespace.svc:9000")
    assert named.count("resolvers dns init-addr") == 2
    assert "frontend health" not in named
    assert "bind 0.0.0.0:9080" in front(health_bind="0.0.0.0:9080")


@given(st.text(min_size=1))
def test_no_value_becomes_more_than_one_word(value):
    try:
        text = front(client_ca=value)
    except ValueError:
        assert any(c in value for c in " \"'\\#$") or not value.isprintable()
    else:
        assert len(text.splitlines()) == len(front(client_ca="/ca").splitlines())
        assert f"ca-file {value} verify required\n" in text


@pytest.mark.parametrize("health", ["", "127.0.0.1:9080"])
@pytest.mark.parametrize("server", ["127.0.0.1", "no.such.name.example"])
@pytest.mark.parametrize("with_ca", [True, False])
def test_our_haproxy_takes_it(pki, tmp_path, health, server, with_ca):
    file = tmp_path / "haproxy.cfg"
    changes = {"grpc_server": f"{server}:9000", "http_server": f"{server}:8000", "health_bind": health}
    ca = str(pki / "ca.crt") if with_ca else ""
    file.write_text(front(certificate=str(pki / "server.crt"), client_ca=ca, **changes))
    done = subprocess.run([haproxy_binary(), "-c", "-f", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


def test_a_wrong_certificate_is_told(pki, tmp_path):
    files = {"tls_cert": pki / "server.crt", "tls_key": pki / "client.key"}
    config = ServiceConfig.from_mapping({"front": files})
    bundle, file = tmp_path / "front.pem", tmp_path / "haproxy.cfg"
    write_bundle(config.front, bundle)
    assert bundle.stat().st_mode & 0o077 == 0
    file.write_text(render(front_of(config, certificate=str(bundle))))
    with pytest.raises(StartupError, match="HAProxy refuses"):
        check(haproxy_binary(), file)
    missing = ServiceConfig.from_mapping({"front": files | {"tls_key": tmp_path / "none"}})
    with pytest.raises(StartupError, match="Cannot read"):
        write_bundle(missing.front, bundle)


@pytest.mark.parametrize(
    "wrong", [{"tls_cert": "a"}, {"tls_key": "a"}, {"client_ca": "a"}, {"tls_cert": "a", "client_ca": "b"}]
)
def test_half_a_front_is_refused(wrong):
    with pytest.raises(StartupError, match="front"):
        ServiceConfig.from_mapping({"front": wrong})


def test_the_command_prints_the_very_text():
    arguments = ["front", "config", "--bind", FRONT.bind, "--certificate", FRONT.certificate]
    arguments += ["--grpc-server", "serve:9000", "--http-server", "serve:8000"]
    printed = CliRunner().invoke(app, arguments)
    assert printed.exit_code == 0
    assert printed.output == front(
        grpc_server="serve:9000", http_server="serve:8000", max_bytes=ServiceConfig().gateway.max_input_bytes
    )


@pytest.mark.parametrize(
    ("given_address", "bound"),
    [
        ("[::]:9000", "127.0.0.1:9000"),
        ("0.0.0.0:0", "127.0.0.1:0"),
        ("127.0.0.1:5", "127.0.0.1:5"),
        ("10.0.0.1:5", "10.0.0.1:5"),
        ("unix:/a", "unix:/a"),
    ],
)
def test_only_wildcards_become_loopback(given_address, bound):
    assert loopback.loopback(given_address) == bound


def test_a_server_that_binds_everything_binds_loopback_afterwards():
    script = (
        "import asyncio, grpc, psutil\n"
        "from reasonserve.front.loopback import bind_to_loopback\n"
        "bind_to_loopback()\n"
        "async def main():\n"
        "    server = grpc.aio.server()\n"
        "    server.add_insecure_port('[::]:0')\n"
        "    await server.start()\n"
        "    found = psutil.Process().net_connections(kind='inet')\n"
        "    print({c.laddr.ip for c in found if c.status == 'LISTEN'})\n"
        "    await server.stop(None)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.replace("::ffff:", "").strip() == "{'127.0.0.1'}"
