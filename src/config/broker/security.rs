//! Authentication, encryption and authorisation. What is not supported yet is never ignored.
//!
//! Rows only: a name, its type, default, legal values, scope of change, effect and one sentence. Source: Kafka 3.9
//! `KafkaConfig`; the sentences are ours.

use super::super::setting::*;
use super::super::{oauth, token_source};

/// The rows, in the order a reader looks for them.
pub(crate) const ROWS: &[Setting] = settings! {
    "authorizer.class.name" Text "" [Any] ReadOnly => Honoured,
        "Class that decides who may do what.";
    "principal.builder.class" Class "org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder"
        [Any] PerBroker => Refused("Java classes cannot be loaded"),
        "Class that names the principal of a connection.";
    "security.providers" Text null [Any] ReadOnly => Refused("Java classes cannot be loaded"),
        "Classes that add security algorithms.";
    "create.topic.policy.class.name" Class null
        [Any] ReadOnly => Refused("Java classes cannot be loaded, and a policy is never ignored"),
        "Class that may refuse new topics.";
    "alter.config.policy.class.name" Class null
        [Any] ReadOnly => Refused("Java classes cannot be loaded, and a policy is never ignored"),
        "Class that may refuse changed settings.";
    "client.quota.callback.class" Class null
        [Any] ReadOnly => Refused("Java classes cannot be loaded, and a quota is never ignored"),
        "Class that decides client quotas.";
    "connections.max.reauth.ms" Long "0" [Any] ReadOnly => Honoured,
        "Time after which SASL clients must authenticate again.";
    "delegation.token.master.key" Password null [Any] ReadOnly => Honoured,
        "Former name of delegation.token.secret.key.";
    "delegation.token.secret.key" Password null [Any] ReadOnly => Honoured,
        "Secret that signs delegation tokens.";
    "delegation.token.expiry.check.interval.ms" Long "3600000" [AtLeast(1)] ReadOnly => Honoured,
        "Interval of the search for expired delegation tokens.";
    "delegation.token.expiry.time.ms" Long "86400000" [AtLeast(1)] ReadOnly => Honoured,
        "Time a delegation token is valid without renewal.";
    "delegation.token.max.lifetime.ms" Long "604800000" [AtLeast(1)] ReadOnly => Honoured,
        "Longest life of a delegation token.";
    "sasl.enabled.mechanisms" List "GSSAPI" [Any] PerBroker => Honoured,
        "SASL mechanisms clients may use.";
    "sasl.mechanism.inter.broker.protocol" Text "GSSAPI" [Any] PerBroker => Honoured,
        "SASL mechanism between brokers.";
    "sasl.jaas.config" Password null [Any] PerBroker => Honoured,
        "JAAS login of SASL.";
    "sasl.server.max.receive.size" Int "524288" [Any] ReadOnly => Honoured,
        "Largest request before authentication.";
    "sasl.client.callback.handler.class" Class null [Any] ReadOnly => Refused("Java classes cannot be loaded"),
        "Class that answers SASL client callbacks.";
    "sasl.login.callback.handler.class" Class null [ClassOf(&token_source::HANDLERS)] ReadOnly => Honoured,
        "Class that answers SASL login callbacks.";
    "sasl.login.class" Class null [Any] ReadOnly => Refused("Java classes cannot be loaded"),
        "Class that logs in for SASL.";
    "sasl.server.callback.handler.class" Class null [ClassOf(&oauth::HANDLERS)] ReadOnly => Honoured,
        "Class that answers SASL server callbacks.";
    "sasl.kerberos.kinit.cmd" Text "/usr/bin/kinit" [Any] PerBroker => NoEffect,
        "Path of kinit.";
    "sasl.kerberos.min.time.before.relogin" Long "60000" [Any] PerBroker => NoEffect,
        "Shortest time between two Kerberos logins.";
    "sasl.kerberos.principal.to.local.rules" List "DEFAULT" [Any] PerBroker => Refused("Kerberos is not supported"),
        "Rules from Kerberos principals to short names.";
    "sasl.kerberos.service.name" Text null [Any] PerBroker => Refused("Kerberos is not supported"),
        "Kerberos principal name of the brokers.";
    "sasl.kerberos.ticket.renew.jitter" Double "0.05" [Any] PerBroker => NoEffect,
        "Random share of the time to a ticket's renewal.";
    "sasl.kerberos.ticket.renew.window.factor" Double "0.8" [Any] PerBroker => NoEffect,
        "Share of a ticket's life after which it is renewed.";
    "sasl.login.connect.timeout.ms" Int null [Any] ReadOnly => Honoured,
        "Time-out for connecting to the login provider.";
    "sasl.login.read.timeout.ms" Int null [Any] ReadOnly => Honoured,
        "Time-out for reading from the login provider.";
    "sasl.login.refresh.buffer.seconds" Short "300" [Any] PerBroker => Honoured,
        "Time before expiry at which a login is renewed.";
    "sasl.login.refresh.min.period.seconds" Short "60" [Any] PerBroker => Honoured,
        "Shortest time before a login is renewed.";
    "sasl.login.refresh.window.factor" Double "0.8" [Any] PerBroker => Honoured,
        "Share of a login's life after which it is renewed.";
    "sasl.login.refresh.window.jitter" Double "0.05" [Any] PerBroker => Honoured,
        "Random share of that time.";
    "sasl.login.retry.backoff.ms" Long "100" [Any] ReadOnly => Honoured,
        "First pause before a login is tried again.";
    "sasl.login.retry.backoff.max.ms" Long "10000" [Any] ReadOnly => Honoured,
        "Longest pause before a login is tried again.";
    "sasl.oauthbearer.clock.skew.seconds" Int "30" [Any] ReadOnly => Honoured,
        "Allowed difference of clocks when a token is checked.";
    "sasl.oauthbearer.expected.audience" List null [Any] ReadOnly => Honoured,
        "Audiences a token must name.";
    "sasl.oauthbearer.expected.issuer" Text null [Any] ReadOnly => Honoured,
        "Issuer a token must name.";
    "sasl.oauthbearer.jwks.endpoint.url" Text null [Any] ReadOnly => Honoured,
        "Where the keys that sign tokens are found.";
    "sasl.oauthbearer.jwks.endpoint.refresh.ms" Long "3600000" [Any] ReadOnly => Honoured,
        "Interval at which those keys are read again.";
    "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms" Long "100" [Any] ReadOnly => Honoured,
        "First pause before those keys are asked again.";
    "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms" Long "10000" [Any] ReadOnly => Honoured,
        "Longest pause before those keys are asked again.";
    "sasl.oauthbearer.scope.claim.name" Text "scope" [Any] ReadOnly => Honoured,
        "Claim of a token that holds the scope.";
    "sasl.oauthbearer.sub.claim.name" Text "sub" [Any] ReadOnly => Honoured,
        "Claim of a token that holds the subject.";
    "sasl.oauthbearer.token.endpoint.url" Text null [Any] ReadOnly => Honoured,
        "Where tokens are asked for.";
    "ssl.client.auth" Text "none"
        [OneOf(&["required", "requested", "none"])] PerBroker => Honoured,
        "Whether clients must show a certificate.";
    "ssl.keystore.location" Text null [Any] PerBroker => Honoured,
        "File of the broker's key and certificate.";
    "ssl.keystore.password" Password null [Any] PerBroker => Honoured,
        "Password of the key store.";
    "ssl.keystore.type" Text "JKS" [Any] PerBroker => Honoured,
        "Format of the key store.";
    "ssl.keystore.key" Password null [Any] PerBroker => Honoured,
        "The broker's private key as PEM.";
    "ssl.keystore.certificate.chain" Password null [Any] PerBroker => Honoured,
        "The broker's certificates as PEM.";
    "ssl.key.password" Password null [Any] PerBroker => Honoured,
        "Password of the private key.";
    "ssl.keymanager.algorithm" Text "SunX509" [Any] PerBroker => NoEffect,
        "Algorithm of Java's key manager.";
    "ssl.truststore.location" Text null [Any] PerBroker => Honoured,
        "File of the certificates that are trusted.";
    "ssl.truststore.password" Password null [Any] PerBroker => Honoured,
        "Password of the trust store.";
    "ssl.truststore.type" Text "JKS" [Any] PerBroker => Honoured,
        "Format of the trust store.";
    "ssl.truststore.certificates" Password null [Any] PerBroker => Honoured,
        "Trusted certificates as PEM.";
    "ssl.trustmanager.algorithm" Text "PKIX" [Any] PerBroker => NoEffect,
        "Algorithm of Java's trust manager.";
    "ssl.cipher.suites" List "" [Any] PerBroker => Honoured,
        "Cipher suites that are offered.";
    "ssl.enabled.protocols" List "TLSv1.2,TLSv1.3" [Any] PerBroker => Honoured,
        "TLS versions that are offered.";
    "ssl.endpoint.identification.algorithm" Text "https" [Any] PerBroker => Honoured,
        "How the host name in a broker's certificate is checked.";
    "ssl.engine.factory.class" Class null [Any] PerBroker => Refused("Java classes cannot be loaded"),
        "Class that makes TLS engines.";
    "ssl.principal.mapping.rules" Text "DEFAULT" [Any] ReadOnly => Honoured,
        "Rules from certificate names to principals.";
    "ssl.protocol" Text "TLSv1.3" [Any] PerBroker => Honoured,
        "TLS version connections start with.";
    "ssl.provider" Text null [Any] PerBroker => Refused("there are no Java security providers"),
        "Java security provider for TLS.";
    "ssl.secure.random.implementation" Text null [Any] PerBroker => Refused("random numbers are the system's"),
        "Random number generator for TLS.";
    "ssl.allow.dn.changes" Boolean "false" [Any] ReadOnly => Honoured,
        "Whether a new certificate may carry another name.";
    "ssl.allow.san.changes" Boolean "false" [Any] ReadOnly => Honoured,
        "Whether a new certificate may carry other alternative names.";
};
