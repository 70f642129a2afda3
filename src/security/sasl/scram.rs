//! SCRAM (RFC 5802, RFC 7677), without channel binding: server and client, and their messages.
//!
//! Names and nonces are read as strictly as Kafka reads them, or more so: a mandatory extension, which nobody knows,
//! and a channel binding are refused. Who is not known is refused where Kafka does it, at the first message, and with
//! the text of a wrong password. Source: Kafka 3.9 `ScramSaslServer`, `ScramMessages`.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use subtle::ConstantTimeEq;

use super::authority::Authority;
use super::credential::{ITERATIONS_MIN, ScramCredential, ScramHash};
use super::outcome::{Authenticated, Next, Refused};
use crate::clock::UnixMs;
use crate::config::sasl::SaslMechanism;

/// Longest message of a client (our choice): what is kept of the first one four times over, until the client has proved
/// who it is or its time is over, waits in no budget. Names and nonces of clients take some hundred bytes.
const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// The server's end.
#[derive(Debug)]
pub(super) struct ScramServer {
    mechanism: SaslMechanism,
    state: ServerState,
}

#[derive(Debug)]
enum ServerState {
    First,
    Final(Box<Challenged>),
    Over,
}

/// Whom the client says to be, and what proves it.
#[derive(Debug)]
struct Shown {
    /// The owner of the token, if it is one.
    user: String,
    credential: ScramCredential,
    /// When the token ends; `None`: a password.
    token_ends_at: Option<UnixMs>,
}

impl Shown {
    fn find(
        first: &ClientFirst,
        hash: ScramHash,
        mechanism: SaslMechanism,
        authority: &Authority,
    ) -> Result<Self, Refused> {
        if first.by_token {
            let login = authority.token(&first.user, hash).ok_or(Refused::Hidden("there is no such token"))?;
            return Ok(Self { user: login.owner, credential: login.credential, token_ends_at: Some(login.expires_ms) });
        }
        let credential = authority.credential(&first.user, mechanism);
        let credential = credential.ok_or(Refused::Hidden("there is no such user"))?;
        Ok(Self { user: first.user.clone(), credential, token_ends_at: None })
    }
}

/// What the client's last message has to fit.
#[derive(Debug)]
struct Challenged {
    shown: Shown,
    /// `n,` with the authorization id, as the client sent it.
    gs2_header: String,
    client_first_bare: String,
    server_first: String,
    nonce: String,
}

impl ScramServer {
    pub(super) fn new(mechanism: SaslMechanism) -> Self {
        Self { mechanism, state: ServerState::First }
    }

    /// Takes the client's next message.
    ///
    /// # Errors
    /// It is malformed, comes out of order, or proves nothing.
    pub(super) fn evaluate(&mut self, message: &[u8], authority: &Authority) -> Result<Next, Refused> {
        let hash = ScramHash::of(self.mechanism).ok_or(Refused::Hidden("no SCRAM mechanism; this is a bug"))?;
        let state = std::mem::replace(&mut self.state, ServerState::Over);
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(Refused::Hidden("a message that is too long"));
        }
        match state {
            ServerState::First => {
                let first = ClientFirst::parse(message).ok_or(Refused::Hidden("a malformed first message"))?;
                let shown = Shown::find(&first, hash, self.mechanism, authority)?;
                let challenged = challenge(hash, first, shown, &authority.nonce())?;
                let server_first = challenged.server_first.clone().into_bytes();
                self.state = ServerState::Final(Box::new(challenged));
                Ok(Next::Challenge(server_first))
            }
            ServerState::Final(challenged) => conclude(hash, &challenged, message).map(Next::Done),
            ServerState::Over => Err(Refused::Hidden("a message after the last one")),
        }
    }
}

fn challenge(hash: ScramHash, first: ClientFirst, shown: Shown, nonce: &str) -> Result<Challenged, Refused> {
    let credential = &shown.credential;
    if !first.authorization_id.is_empty() && first.authorization_id != first.user {
        let text = "Authentication failed: Client requested an authorization id that is different from username";
        return Err(Refused::told(text));
    }
    if credential.iterations < ITERATIONS_MIN {
        return Err(Refused::Hidden("the stored credential has too few iterations"));
    }
    if credential.stored_key.len() != hash.len() || credential.server_key.len() != hash.len() {
        return Err(Refused::Hidden("the stored credential has keys of another mechanism"));
    }
    let nonce = format!("{}{nonce}", first.nonce);
    let server_first = format!("r={nonce},s={},i={}", BASE64.encode(&credential.salt), credential.iterations);
    Ok(Challenged { shown, gs2_header: first.gs2_header, client_first_bare: first.bare, server_first, nonce })
}

fn conclude(hash: ScramHash, challenged: &Challenged, message: &[u8]) -> Result<Authenticated, Refused> {
    let last = ClientFinal::parse(message).ok_or(Refused::Hidden("a malformed final message"))?;
    // librdkafka 2.0 and older repeat their own part before it. Kafka 3.9 lets them; the proof covers what was sent.
    if !last.nonce.ends_with(&challenged.nonce) {
        return Err(Refused::Hidden("another nonce"));
    }
    // Java's client leaves the authorization id out the second time.
    if last.channel != challenged.gs2_header.as_bytes() && last.channel != b"n,," {
        return Err(Refused::Hidden("another channel binding"));
    }
    let auth_message = auth_message(&challenged.client_first_bare, &challenged.server_first, last.without_proof);
    let credential = &challenged.shown.credential;
    let signature = hash.hmac(&credential.stored_key, auth_message.as_bytes());
    let client_key = xor(&last.proof, &signature).ok_or(Refused::Hidden("a proof of another length"))?;
    if !bool::from(hash.digest(&client_key).ct_eq(&credential.stored_key)) {
        return Err(Refused::Hidden("a wrong password"));
    }
    let signature = hash.hmac(&credential.server_key, auth_message.as_bytes());
    Ok(Authenticated {
        user: challenged.shown.user.clone(),
        token: format!("v={}", BASE64.encode(signature)).into_bytes(),
        by_token: challenged.shown.token_ends_at.is_some(),
        expires_at_ms: challenged.shown.token_ends_at,
    })
}

fn auth_message(client_first_bare: &str, server_first: &str, client_final_without_proof: &str) -> String {
    format!("{client_first_bare},{server_first},{client_final_without_proof}")
}

fn xor(a: &[u8], b: &[u8]) -> Option<Vec<u8>> {
    (a.len() == b.len()).then(|| a.iter().zip(b).map(|(a, b)| a ^ b).collect())
}

/// `n,[a=authzid],n=user,r=nonce[,extensions]`.
#[derive(Debug, PartialEq, Eq)]
struct ClientFirst {
    gs2_header: String,
    /// What follows it.
    bare: String,
    authorization_id: String,
    user: String,
    nonce: String,
    /// `tokenauth=true`: the user is a delegation token's id.
    by_token: bool,
}

impl ClientFirst {
    fn parse(message: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(message).ok().filter(|text| text.bytes().all(|b| (1..=0x7f).contains(&b)))?;
        let rest = text.strip_prefix("n,")?;
        let (authorization_id, bare) = rest.split_once(',')?;
        let gs2_header = &text[..text.len() - bare.len()];
        let authorization_id = match authorization_id {
            "" => String::new(),
            id => sasl_name(id.strip_prefix("a=")?)?,
        };
        let mut attributes = bare.split(',');
        let user = sasl_name(attributes.next()?.strip_prefix("n=")?)?;
        let nonce = attributes.next()?.strip_prefix("r=").filter(|nonce| is_nonce(nonce))?;
        let mut by_token = false;
        for extension in attributes {
            let (name, value) = extension.split_once('=')?;
            if !is_extension(name, value) {
                return None;
            }
            if name == "tokenauth" {
                // The last one counts, as in Kafka.
                by_token = value.eq_ignore_ascii_case("true");
            }
        }
        Some(Self {
            gs2_header: gs2_header.to_owned(),
            bare: bare.to_owned(),
            authorization_id,
            user,
            nonce: nonce.to_owned(),
            by_token,
        })
    }
}

/// `c=channel,r=nonce[,extensions],p=proof`.
#[derive(Debug, PartialEq, Eq)]
struct ClientFinal<'a> {
    without_proof: &'a str,
    channel: Vec<u8>,
    nonce: &'a str,
    proof: Vec<u8>,
}

impl<'a> ClientFinal<'a> {
    fn parse(message: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(message).ok()?;
        let (without_proof, proof) = text.rsplit_once(",p=")?;
        let mut attributes = without_proof.split(',');
        let channel = BASE64.decode(attributes.next()?.strip_prefix("c=")?).ok()?;
        let nonce = attributes.next()?.strip_prefix("r=").filter(|nonce| is_nonce(nonce))?;
        let extensions = attributes.map(|extension| extension.split_once('='));
        for extension in extensions {
            let (name, value) = extension?;
            if !is_extension(name, value) {
                return None;
            }
        }
        Some(Self { without_proof, channel, nonce, proof: BASE64.decode(proof).ok()? })
    }
}

/// A name, in which `=2C` and `=3D` stand for comma and equals sign, and no other `=` may.
fn sasl_name(text: &str) -> Option<String> {
    let mut pieces = text.split('=');
    let mut name = pieces.next()?.to_owned();
    for piece in pieces {
        let (code, rest) = piece.split_at_checked(2)?;
        name.push(match code {
            "2C" => ',',
            "3D" => '=',
            _ => return None,
        });
        name.push_str(rest);
    }
    (!name.is_empty()).then_some(name)
}

/// Turns a name into what `sasl_name` reads.
fn quoted(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| (0x21..=0x7e).contains(&b) && b != b',')
}

fn is_extension(name: &str, value: &str) -> bool {
    // `m` is for extensions that must be understood.
    name != "m" && !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphabetic()) && !value.is_empty()
}

/// Most iterations that a client goes through because a server asks for them: a second or so.
const ITERATIONS_ASKED_MAX: u32 = 1 << 20;

/// The client's end, for where this broker authenticates at others.
#[derive(Debug)]
pub(super) struct ScramClient {
    hash: ScramHash,
    first_bare: String,
    nonce: String,
}

/// The client's last message is sent; the server has to prove that it knows the password too.
#[derive(Debug)]
pub(super) struct ScramProof {
    pub(super) message: Vec<u8>,
    server_signature: Vec<u8>,
}

impl ScramClient {
    pub(super) fn new(hash: ScramHash, user: &str, nonce: String) -> Self {
        Self { hash, first_bare: format!("n={},r={nonce}", quoted(user)), nonce }
    }

    pub(super) fn first(&self) -> Vec<u8> {
        format!("n,,{}", self.first_bare).into_bytes()
    }

    /// Answers the server's challenge. Takes as long as the server asks for, up to a bound: call it where one may
    /// block.
    ///
    /// # Errors
    /// The challenge is malformed, is no answer to the first message, or asks for too much or too little.
    pub(super) fn prove(&self, challenge: &[u8], password: &str) -> Result<ScramProof, &'static str> {
        const MALFORMED: &str = "its SCRAM challenge is malformed";
        let server_first = std::str::from_utf8(challenge).map_err(|_| MALFORMED)?;
        let mut attributes = server_first.split(',');
        let mut next = |key: &str| attributes.next().and_then(|part| part.strip_prefix(key)).ok_or(MALFORMED);
        let (nonce, salt, iterations) = (next("r=")?, next("s=")?, next("i=")?);
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() || !is_nonce(nonce) {
            return Err("its SCRAM challenge has another nonce");
        }
        let salt = BASE64.decode(salt).map_err(|_| MALFORMED)?;
        let iterations: NonZeroU32 = iterations.parse().map_err(|_| MALFORMED)?;
        if !(ITERATIONS_MIN as u32..=ITERATIONS_ASKED_MAX).contains(&iterations.get()) {
            return Err("its SCRAM challenge asks for too few or too many iterations");
        }
        let hash = self.hash;
        let salted = hash.salted_password(password, &salt, iterations);
        let client_key = hash.hmac(&salted, b"Client Key");
        let without_proof = format!("c=biws,r={nonce}");
        let auth_message = auth_message(&self.first_bare, server_first, &without_proof);
        let signature = hash.hmac(&hash.digest(&client_key), auth_message.as_bytes());
        let proof = xor(&client_key, &signature).unwrap_or_default();
        let server_signature = hash.hmac(&hash.hmac(&salted, b"Server Key"), auth_message.as_bytes());
        let message = format!("{without_proof},p={}", BASE64.encode(proof)).into_bytes();
        Ok(ScramProof { message, server_signature })
    }
}

impl ScramProof {
    /// Whether the server's last message shows that it knows the password.
    pub(super) fn is_proved_by(&self, server_final: &[u8]) -> bool {
        let signature = server_final.strip_prefix(b"v=").and_then(|text| BASE64.decode(text).ok());
        signature.is_some_and(|signature| signature.ct_eq(&self.server_signature).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                         p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn credential(hash: ScramHash, password: &str, salt: &[u8]) -> ScramCredential {
        ScramCredential::of_password(hash, salt, password, 4096)
    }

    fn shown(credential: ScramCredential) -> Shown {
        Shown { user: "user".into(), credential, token_ends_at: None }
    }

    fn challenged(first: &str) -> Result<Challenged, Refused> {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
        let first = ClientFirst::parse(first.as_bytes()).expect("well formed");
        challenge(ScramHash::Sha256, first, shown(credential(ScramHash::Sha256, "pencil", &salt)), NONCE)
    }

    /// The example of RFC 7677.
    #[test]
    fn both_ends_say_what_the_rfc_says() {
        let challenged = challenged(FIRST).expect("a challenge");
        assert_eq!(challenged.server_first, SERVER_FIRST);
        let done = conclude(ScramHash::Sha256, &challenged, FINAL.as_bytes()).expect("proved");
        assert_eq!((done.user.as_str(), done.token.as_slice()), ("user", SERVER_FINAL.as_bytes()));
        let client = ScramClient::new(ScramHash::Sha256, "user", "rOprNGfwEbeRWgbNEkqO".into());
        assert_eq!(client.first(), FIRST.as_bytes());
        let proof = client.prove(SERVER_FIRST.as_bytes(), "pencil").expect("a proof");
        assert_eq!(proof.message, FINAL.as_bytes());
        assert!(proof.is_proved_by(SERVER_FINAL.as_bytes()));
        assert!(!proof.is_proved_by(b"v=AAAA") && !proof.is_proved_by(b"e=other-error") && !proof.is_proved_by(b""));
    }

    #[test]
    fn a_longer_hash_does_the_same() {
        let hash = ScramHash::Sha512;
        let client = ScramClient::new(hash, "a=b,c", "abc".into());
        let first = ClientFirst::parse(&client.first()).expect("well formed");
        assert_eq!(first.user, "a=b,c");
        let challenged = challenge(hash, first, shown(credential(hash, "p\u{e9}", b"salt")), "xyz");
        let challenged = challenged.expect("a challenge");
        let proof = client.prove(challenged.server_first.as_bytes(), "p\u{e9}").expect("a proof");
        let done = conclude(hash, &challenged, &proof.message).expect("proved");
        assert!(proof.is_proved_by(&done.token));
        let wrong = client.prove(challenged.server_first.as_bytes(), "p").expect("a proof");
        assert_eq!(conclude(hash, &challenged, &wrong.message), Err(Refused::Hidden("a wrong password")));
    }

    /// `ScramSaslServer` of 3.9.1 asks how the nonce ends.
    #[test]
    fn a_client_may_repeat_its_part_of_the_nonce() {
        let hash = ScramHash::Sha256;
        let challenged = challenged(FIRST).expect("a challenge");
        let without_proof = format!("c=biws,r=rOprNGfwEbeRWgbNEkqO{}", challenged.nonce);
        let salted =
            hash.salted_password("pencil", &challenged.shown.credential.salt, NonZeroU32::new(4096).expect("not 0"));
        let client_key = hash.hmac(&salted, b"Client Key");
        let message = auth_message(&challenged.client_first_bare, SERVER_FIRST, &without_proof);
        let signature = hash.hmac(&hash.digest(&client_key), message.as_bytes());
        let proof = BASE64.encode(xor(&client_key, &signature).expect("as long"));
        assert!(conclude(hash, &challenged, format!("{without_proof},p={proof}").as_bytes()).is_ok());
    }

    #[test]
    fn messages_are_read_strictly() {
        let first = |text: &str| ClientFirst::parse(text.as_bytes());
        let read = first("n,a=x=2Cy,n=u=3D,r=abc,tokenauth=TRUE").expect("well formed");
        assert_eq!((read.authorization_id.as_str(), read.user.as_str(), read.by_token), ("x,y", "u=", true));
        let twice = first("n,,n=u,r=abc,tokenauth=true,tokenauth=false").expect("well formed");
        assert!(!twice.by_token, "the last one counts");
        assert_eq!((read.gs2_header.as_str(), read.bare.as_str()), ("n,a=x=2Cy,", "n=u=3D,r=abc,tokenauth=TRUE"));
        for bad in [
            "",
            "n",
            "n,",
            "n,,",
            "y,,n=u,r=a",
            "p=tls-unique,,n=u,r=a",
            "n,,m=x,n=u,r=a",
            "n,,n=,r=a",
            "n,,n=u,r=",
            "n,,n=u",
            "n,,n=u=,r=a",
            "n,,n=u=2D,r=a",
            "n,,n=u=2,r=a",
            "n,x,n=u,r=a",
            "n,a=,n=u,r=a",
            "n,,n=u,r=a b",
            "n,,n=u,r=a,",
            "n,,n=u,r=a,m=x",
            "n,,n=u,r=a,e1=x",
            "n,,n=u,r=a,e=",
            "n,,n=\u{e9},r=a",
            "n,,n=u\0,r=a",
        ] {
            assert_eq!(first(bad), None, "{bad:?}");
        }
        let last = |text: &str| ClientFinal::parse(text.as_bytes()).is_some();
        assert!(last("c=biws,r=a,p=AAAA") && last("c=biws,r=a,e=x,p=AAAA"));
        for bad in [
            "",
            "c=biws,r=a",
            "c=biws,p=AAAA",
            "c=!,r=a,p=AAAA",
            "c=biws,r=,p=AAAA",
            "c=biws,r=a,p=A",
            "c=biws,r=a,x,p=",
        ] {
            assert!(!last(bad), "{bad:?}");
        }
    }

    /// CVE-2024-56128: the nonce of both ends counts.
    #[test]
    fn a_proof_for_another_challenge_is_none() {
        let challenged = challenged(FIRST).expect("a challenge");
        let judge = |message: String| conclude(ScramHash::Sha256, &challenged, message.as_bytes());
        assert_eq!(judge(FINAL.replace("k0", "k1")), Err(Refused::Hidden("another nonce")));
        assert_eq!(judge(FINAL.replace("biws", "eSws")), Err(Refused::Hidden("another channel binding")));
        assert_eq!(judge(FINAL.replace("p=dHzb", "p=AAAA")), Err(Refused::Hidden("a wrong password")));
        assert_eq!(
            judge(FINAL.replace("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", "AAAA")),
            Err(Refused::Hidden("a proof of another length"))
        );
        let other = super::tests::challenged("n,a=bob,n=user,r=rOprNGfwEbeRWgbNEkqO");
        assert!(matches!(other, Err(Refused::Told(text)) if text.contains("authorization id")));
        assert!(super::tests::challenged("n,a=user,n=user,r=rOprNGfwEbeRWgbNEkqO").is_ok());
    }

    #[test]
    fn a_server_cannot_ask_a_client_for_everything() {
        let client = ScramClient::new(ScramHash::Sha256, "u", "abc".into());
        for bad in [
            "",
            "r=abcd",
            "r=abc,s=AAAA,i=4096",
            "r=xyz1,s=AAAA,i=4096",
            "r=abcd,s=AAAA,i=1",
            "r=abcd,s=AAAA,i=0",
            "r=abcd,s=AAAA,i=99999999",
            "r=abcd,s=!,i=4096",
            "r=abcd,i=4096,s=AAAA",
            "e=unknown-user",
        ] {
            assert!(client.prove(bad.as_bytes(), "p").is_err(), "{bad}");
        }
    }
}
