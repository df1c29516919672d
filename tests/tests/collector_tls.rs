//! A collector behind TLS whose certificate nobody else has signed.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tests::{Collector, Protocol, Service, Setup, client, tools};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const SOON: Duration = Duration::from_secs(30);

/// Takes TLS off what it is sent, and hands it on to a collector.
struct Front {
    port: u16,
    folder: TempDir,
}

impl Front {
    /// None, said aloud, if there is nobody to make its certificate.
    async fn of(collector: &Collector, protocol: Protocol) -> Option<Front> {
        Self::start(collector, protocol, false).await
    }

    /// One that lets nobody in but those who show this very certificate.
    async fn asking(collector: &Collector, protocol: Protocol) -> Option<Front> {
        Self::start(collector, protocol, true).await
    }

    async fn start(collector: &Collector, protocol: Protocol, asks: bool) -> Option<Front> {
        client::install_tls();
        let (openssl, folder) = (tools::find("openssl")?, tempfile::tempdir().unwrap());
        let mut command = Command::new(openssl);
        command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=collector"]);
        command.args(["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]);
        let made =
            command.args(["-keyout", "key.pem", "-out", "cert.pem"]).current_dir(folder.path()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let certificate = CertificateDer::from_pem_file(folder.path().join("cert.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(folder.path().join("key.pem")).unwrap();
        let config = match asks {
            true => ServerConfig::builder().with_client_cert_verifier(only(&certificate)),
            false => ServerConfig::builder().with_no_client_auth(),
        };
        let mut config = config.with_single_cert(vec![certificate], key).unwrap();
        // Who speaks gRPC wants to be told that it is HTTP/2.
        config.alpn_protocols = if protocol == Protocol::Grpc { vec![b"h2".to_vec()] } else { Vec::new() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let variables = collector.environment(protocol);
        let plain = variables.iter().find(|(name, _)| name == "OTEL_EXPORTER_OTLP_ENDPOINT").unwrap();
        let plain = plain.1.trim_start_matches("http://").to_owned();
        tokio::spawn(hand_on(listener, TlsAcceptor::from(Arc::new(config)), plain));
        Some(Front { port, folder })
    }

    fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }
}

fn only(certificate: &CertificateDer<'static>) -> Arc<dyn ClientCertVerifier> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap()
}

async fn hand_on(listener: TcpListener, acceptor: TlsAcceptor, plain: String) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, plain) = (acceptor.clone(), plain.clone());
        tokio::spawn(async move {
            // Who does not trust the certificate hangs up.
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let mut collector = TcpStream::connect(plain).await.unwrap();
            let _ = copy_bidirectional(&mut stream, &mut collector).await;
        });
    }
}

fn sending(collector: &Collector, protocol: Protocol, address: &str) -> Setup {
    Service::setup().telemetry(collector, protocol).env("OTEL_EXPORTER_OTLP_ENDPOINT", address)
}

#[tokio::test]
async fn whose_certificate_is_trusted_is_told_by_both_protocols_however_its_address_is_written() {
    let ways = [
        (Protocol::HttpProtobuf, "HTTPS://", "SSL_CERT_FILE"),
        (Protocol::HttpProtobuf, "https://", "OTEL_EXPORTER_OTLP_CERTIFICATE"),
        (Protocol::Grpc, "https://", "SSL_CERT_FILE"),
        (Protocol::Grpc, "", "OTEL_EXPORTER_OTLP_CERTIFICATE"),
    ];
    for (protocol, scheme, trust) in ways {
        let collector = Collector::start().await;
        let Some(front) = Front::of(&collector, protocol).await else { return };
        let setup = sending(&collector, protocol, &format!("{scheme}127.0.0.1:{}", front.port));
        let service = setup.env(trust, front.certificate().display()).start().await;
        collector.span("the boot", SOON, |span| span.name == "boot").await;
        let ended = service.stop().await;
        assert_eq!(ended.code, 0, "{}", ended.log());
        assert!(collector.spans().iter().any(|span| span.name == "shutdown"), "the flush, by {protocol:?}");
    }
}

#[tokio::test]
async fn who_wants_to_know_who_speaks_is_shown_a_certificate() {
    for protocol in [Protocol::HttpProtobuf, Protocol::Grpc] {
        let collector = Collector::start().await;
        let Some(front) = Front::asking(&collector, protocol).await else { return };
        let (certificate, key) = (front.certificate(), front.folder.path().join("key.pem"));
        let setup = sending(&collector, protocol, &format!("https://127.0.0.1:{}", front.port));
        let setup = setup.env("OTEL_EXPORTER_OTLP_CERTIFICATE", certificate.display());
        let setup = setup.env("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", certificate.display());
        let service = setup.env("OTEL_EXPORTER_OTLP_CLIENT_KEY", key.display()).start().await;
        collector.span("the boot", SOON, |span| span.name == "boot").await;
        assert_eq!(service.stop().await.code, 0);
    }
}

#[tokio::test]
async fn whose_certificate_is_not_trusted_is_told_nothing_and_the_log_says_why() {
    for protocol in [Protocol::HttpProtobuf, Protocol::Grpc] {
        let collector = Collector::start().await;
        let Some(front) = Front::of(&collector, protocol).await else { return };
        let service = sending(&collector, protocol, &format!("https://127.0.0.1:{}", front.port)).start().await;
        let job = service.enqueue("publish", serde_json::json!({"topic": "t", "data": 1})).await;
        service.job_in(&job, "done").await;
        let ended = service.stop().await;
        assert_eq!(ended.code, 0, "{}", ended.log());
        assert!(collector.spans().is_empty(), "by {protocol:?}");
        assert!(ended.log().contains("traces lost"), "{}", ended.log());
    }
}
