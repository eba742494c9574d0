"""The certificate of a run's own cluster, which exists in the memory of its processes alone."""

from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from distributed.security import Security

NAME = "captioner"


def own_security() -> Security:
    """Return what lets the processes of one cluster talk to each other, and to nobody else.

    Its certificate is valid at any time: that of Dask is not before the moment when it was made, so
    no worker could connect once a clock was put back.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(1970, 1, 1))
        .not_valid_after(datetime(9999, 12, 31))
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    public = certificate.public_bytes(serialization.Encoding.PEM).decode()
    parts = {"key": secret, "cert": public}
    roles = ("client", "scheduler", "worker")
    own = {f"tls_{role}_{part}": parts[part] for role in roles for part in parts}
    return Security(require_encryption=True, tls_ca_file=public, **own)
