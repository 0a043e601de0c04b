"""TLS and mTLS on a real controller process: who may connect, and which files are refused at the start."""

import datetime
import ipaddress
import signal

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from reasonserve import controller_client, errors
from reasonserve.api.v1 import tenant_service_pb2 as pb

PREFIX = "REASONSERVE_CONTROLLER_TLS_"


class Authority:
    """A certificate authority of this test."""

    def __init__(self, folder, name):
        self._folder, self._name = folder, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = self._write("ca", self._key, self._sign(self._subject, self._key.public_key(), ca=True))[1]

    def issue(self, name):
        """Returns the files of a key and a certificate for 127.0.0.1."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return self._write(name, key, self._sign(subject, key.public_key(), ca=False))

    def _sign(self, subject, public_key, *, ca):
        now = datetime.datetime.now(datetime.UTC)
        addresses = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def _write(self, name, key, certificate):
        key_file, cert_file = (self._folder / f"{self._name}-{name}.{kind}" for kind in ("key", "pem"))
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        key_file.write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
        cert_file.write_bytes(certificate.public_bytes(encoding))
        return key_file, cert_file


@pytest.fixture
def ours(tmp_path):
    return Authority(tmp_path, "ours")


@pytest.fixture
def theirs(tmp_path):
    return Authority(tmp_path, "theirs")


@pytest.fixture
def serve(start, ours):
    key, cert = ours.issue("server")
    return lambda *more: start("--tls-cert-file", str(cert), "--tls-key-file", str(key), *more)


@pytest.fixture
def trust(monkeypatch):
    """Sets what this process, as a client, trusts and presents."""

    def set_files(ca, pair=()):
        for name, file in zip(("CA_FILE", "KEY_FILE", "CERT_FILE"), (ca, *pair), strict=False):
            monkeypatch.setenv(PREFIX + name, str(file))

    return set_files


def _works(process):
    try:
        process.call("ListTenants", pb.ListTenantsRequest())
    except grpc.RpcError as error:
        return error.code() is not grpc.StatusCode.UNAVAILABLE
    return True


def test_with_tls_a_client_that_trusts_the_authority_is_served_and_plain_text_is_not(serve, trust, ours, theirs):
    process = serve()
    assert not _works(process)
    trust(theirs.file)
    assert not _works(process)
    trust(ours.file)
    assert _works(process)


def test_with_mtls_only_clients_of_the_authority_are_served(serve, trust, ours, theirs):
    process = serve("--tls-client-ca-file", str(ours.file))
    trust(ours.file)
    assert not _works(process)
    trust(ours.file, theirs.issue("client"))
    assert not _works(process)
    trust(ours.file, ours.issue("client"))
    assert _works(process)


@pytest.mark.parametrize(
    "given",
    [
        {"cert": "ours-server.pem"},
        {"key": "ours-server.key"},
        {"client-ca": "ours-ca.pem"},
        {"cert": "ours-server.pem", "key": "ours-ca.key"},
        {"cert": "ours-server.pem", "key": "nowhere"},
        {"cert": "ours-server.pem", "key": "ours-server.key", "client-ca": "ours-server.key"},
    ],
    ids=["cert alone", "key alone", "authority alone", "another key", "no file", "no authority"],
)
def test_tls_files_that_cannot_work_are_refused_at_the_start(start, ours, tmp_path, given):
    ours.issue("server")
    options = [word for name, file in given.items() for word in (f"--tls-{name}-file", str(tmp_path / file))]
    process = start(*options)
    assert process.end(signal.SIGTERM)[0] == 2
    assert "--tls-cert-file" in process.lines[-1]


@pytest.mark.parametrize("names", [("CERT_FILE",), ("CERT_FILE", "KEY_FILE"), ("CA_FILE", "KEY_FILE")], ids="+".join)
def test_half_a_client_configuration_is_refused(monkeypatch, tmp_path, names):
    for name in names:
        monkeypatch.setenv(PREFIX + name, str(tmp_path / "x"))
    with pytest.raises(errors.StartupError, match="CA_FILE"):
        controller_client.open_blocking_channel("127.0.0.1:1")


def test_a_client_file_that_is_not_there_is_refused(trust, tmp_path):
    trust(tmp_path / "nowhere")
    with pytest.raises(errors.StartupError, match="Cannot read"):
        controller_client.open_blocking_channel("127.0.0.1:1")
