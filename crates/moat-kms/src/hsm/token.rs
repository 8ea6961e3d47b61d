//! A key in a PKCS#11 token: AES-256, not extractable, used with `CKM_AES_GCM`.
//!
//! One session and one login per key, made when it is first used and again after a failure. A
//! module is loaded once per process and stays; loading foreign code is what PKCS#11 is, and the
//! only place of this crate where it happens. A refused PIN is not tried again, because tokens
//! lock after some tries.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use aws_lc_rs::digest::{SHA256, digest};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use moat_types::{Random, SecretBytes, SecretString};

use super::{HSM_ID_BYTES, Hsm, HsmError, TokenUri};
use crate::seal::{FORMAT, NONCE_BYTES, TAG_BYTES, associated_data};

const KEY_BYTES: u64 = 32;
/// The `CKA_ID` of keys that are made here: random, so that no two keys are taken for one.
const CKA_ID_BYTES: usize = 16;

/// The modules of this process. Two contexts of one module can crash it.
static MODULES: Mutex<Option<HashMap<PathBuf, Pkcs11>>> = Mutex::new(None);

/// Held for reading while a module is used, for writing while it is begun anew.
static IN_USE: RwLock<()> = RwLock::new(());

/// A key in a token.
pub struct TokenKey {
    uri: TokenUri,
    pin: SecretString,
    id: [u8; HSM_ID_BYTES],
    link: Mutex<Link>,
}

/// The way to the key.
enum Link {
    Open(Connection),
    Closed,
    /// The token refused the PIN.
    Refused(HsmError),
}

struct Connection {
    session: Session,
    key: ObjectHandle,
    id: [u8; HSM_ID_BYTES],
}

impl TokenKey {
    /// Opens the token and finds the key.
    ///
    /// # Errors
    /// `HsmError` says which of module, token, PIN and key it is.
    pub fn open(uri: TokenUri, pin: SecretString) -> Result<Self, HsmError> {
        let connection = connect(&uri, &pin)?;
        Ok(Self {
            id: connection.id,
            link: Mutex::new(Link::Open(connection)),
            uri,
            pin,
        })
    }

    /// Makes a key of the URI's label in the token: AES-256, sensitive, not extractable.
    ///
    /// # Errors
    /// `HsmError::ManyKeys` if one of that label is there already.
    pub fn create(uri: TokenUri, pin: SecretString, random: &dyn Random) -> Result<Self, HsmError> {
        let (session, _) = log_in(&uri, &pin)?;
        let there = find(&session, &uri)?;
        if !there.is_empty() {
            return Err(HsmError::ManyKeys {
                token: uri.token.clone(),
                key: uri.object.clone(),
                count: there.len() + 1,
            });
        }
        let mut id = uri.id.clone().unwrap_or_else(|| vec![0; CKA_ID_BYTES]);
        if uri.id.is_none() {
            random.fill(&mut id);
        }
        let template = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::ValueLen(KEY_BYTES.into()),
            Attribute::Label(uri.object.clone().into_bytes()),
            Attribute::Id(id),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
        ];
        session
            .generate_key(&Mechanism::AesKeyGen, &template)
            .map_err(|e| failed(&uri, &e))?;
        drop(session);
        Self::open(uri, pin)
    }

    /// Calls `work` with the session, and once more with a new one if the old one had ended.
    fn with<T>(
        &self,
        work: impl Fn(&Session, ObjectHandle) -> Result<T, Error>,
    ) -> Result<T, HsmError> {
        let mut link = lock(&self.link);
        if let Link::Refused(error) = &*link {
            return Err(error.clone());
        }
        if let Link::Open(connection) = &*link {
            let _in_use = IN_USE.read().unwrap_or_else(PoisonError::into_inner);
            match work(&connection.session, connection.key) {
                Ok(done) => return Ok(done),
                Err(e) if is_sealed(&e) => return Err(HsmError::Sealed),
                // The session is of no more use; whether the token is, the next one shows.
                Err(e) => {
                    tracing::warn!(error = said(&e), token = %self.uri.token, "the token's session ended");
                    *link = Link::Closed;
                }
            }
        }
        *link = Link::Closed;
        let connection = self.reconnect().inspect_err(|error| {
            if let HsmError::Pin { .. } = error {
                *link = Link::Refused(error.clone());
            }
        })?;
        if connection.id != self.id {
            return Err(HsmError::NoKey {
                token: self.uri.token.clone(),
                key: self.uri.object.clone(),
            });
        }
        let _in_use = IN_USE.read().unwrap_or_else(PoisonError::into_inner);
        let done = work(&connection.session, connection.key).map_err(|e| match is_sealed(&e) {
            true => HsmError::Sealed,
            false => failed(&self.uri, &e),
        });
        *link = Link::Open(connection);
        done
    }
}

impl TokenKey {
    /// Connects; if the module does not find the token, once more with the module begun anew,
    /// because modules look for tokens when they begin.
    fn reconnect(&self) -> Result<Connection, HsmError> {
        let first = {
            let _in_use = IN_USE.read().unwrap_or_else(PoisonError::into_inner);
            connect(&self.uri, &self.pin)
        };
        let missing = match first {
            Err(missing @ (HsmError::NoToken { .. } | HsmError::Token { .. })) => missing,
            done => return done,
        };
        let _alone = IN_USE.write().unwrap_or_else(PoisonError::into_inner);
        // That the token is missing says more than that the module can't begin without it.
        begin_anew(&self.uri.module).map_err(|_| missing)?;
        connect(&self.uri, &self.pin)
    }
}

impl Hsm for TokenKey {
    fn id(&self) -> [u8; HSM_ID_BYTES] {
        self.id
    }

    fn describe(&self) -> String {
        self.uri.to_string()
    }

    fn seal(
        &self,
        context: &[u8],
        plaintext: &[u8],
        random: &dyn Random,
    ) -> Result<Vec<u8>, HsmError> {
        let data = associated_data(context);
        let mut nonce = [0; NONCE_BYTES];
        random.fill(&mut nonce);
        let sealed = self.with(|session, key| {
            let mut iv = nonce;
            let gcm = gcm(&mut iv, &data)?;
            session.encrypt(&Mechanism::AesGcm(gcm), key, plaintext)
        })?;
        if sealed.len() != plaintext.len() + TAG_BYTES {
            return Err(HsmError::Token {
                token: self.uri.token.clone(),
                reason: "it does not append the tag of AES-GCM".into(),
            });
        }
        Ok([&[FORMAT], &nonce[..], &sealed].concat())
    }

    fn open(&self, context: &[u8], sealed: &[u8]) -> Result<SecretBytes, HsmError> {
        let (&format, rest) = sealed.split_first().ok_or(HsmError::Sealed)?;
        let (nonce, body) = rest
            .split_first_chunk::<NONCE_BYTES>()
            .ok_or(HsmError::Sealed)?;
        if format != FORMAT || body.len() < TAG_BYTES {
            return Err(HsmError::Sealed);
        }
        let data = associated_data(context);
        let opened = self.with(|session, key| {
            let mut iv = *nonce;
            let gcm = gcm(&mut iv, &data)?;
            session.decrypt(&Mechanism::AesGcm(gcm), key, body)
        })?;
        Ok(SecretBytes::new(opened))
    }
}

fn gcm<'a>(iv: &'a mut [u8], data: &'a [u8]) -> Result<GcmParams<'a>, Error> {
    GcmParams::new(iv, data, ((TAG_BYTES * 8) as u64).into())
}

fn connect(uri: &TokenUri, pin: &SecretString) -> Result<Connection, HsmError> {
    let (session, serial) = log_in(uri, pin)?;
    let keys = find(&session, uri)?;
    let key = match keys.as_slice() {
        [key] => *key,
        [] => {
            return Err(HsmError::NoKey {
                token: uri.token.clone(),
                key: uri.object.clone(),
            });
        }
        several => {
            return Err(HsmError::ManyKeys {
                token: uri.token.clone(),
                key: uri.object.clone(),
                count: several.len(),
            });
        }
    };
    let attributes = session
        .get_attributes(key, &[AttributeType::Id])
        .map_err(|e| failed(uri, &e))?;
    let cka_id = attributes
        .into_iter()
        .find_map(|attribute| match attribute {
            Attribute::Id(id) => Some(id),
            _ => None,
        });
    let id = key_id(&serial, &uri.object, &cka_id.unwrap_or_default());
    Ok(Connection { session, key, id })
}

/// A session of the token, logged in, and the token's serial number.
fn log_in(uri: &TokenUri, pin: &SecretString) -> Result<(Session, String), HsmError> {
    let module = module(&uri.module)?;
    let (slot, serial) = slot(&module, uri)?;
    let session = module.open_rw_session(slot).map_err(|e| failed(uri, &e))?;
    let pin = AuthPin::new(pin.expose().trim_end_matches('\n').into());
    match session.login(UserType::User, Some(&pin)) {
        // Logins are per process and token: another key of ours may have been first.
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok((session, serial)),
        Err(Error::Pkcs11(
            rv @ (RvError::PinIncorrect
            | RvError::PinInvalid
            | RvError::PinLenRange
            | RvError::PinLocked
            | RvError::PinExpired
            | RvError::UserPinNotInitialized),
            _,
        )) => Err(HsmError::Pin {
            token: uri.token.clone(),
            reason: format!("{rv:?}"),
        }),
        Err(e) => Err(failed(uri, &e)),
    }
}

fn module(path: &Path) -> Result<Pkcs11, HsmError> {
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    let modules = modules.get_or_insert_default();
    if let Some(module) = modules.get(path) {
        return Ok(module.clone());
    }
    let module = Pkcs11::new(path).map_err(|e| unusable(path, &e))?;
    begin(&module, path)?;
    modules.insert(path.to_owned(), module.clone());
    Ok(module)
}

fn begin(module: &Pkcs11, path: &Path) -> Result<(), HsmError> {
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
        Err(e) => Err(unusable(path, &e)),
    }
}

/// Ends all sessions of a module and lets it look for tokens again.
fn begin_anew(path: &Path) -> Result<(), HsmError> {
    let module = module(path)?;
    match module.clone().finalize() {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiNotInitialized, _)) => {}
        Err(e) => return Err(unusable(path, &e)),
    }
    begin(&module, path)
}

fn unusable(path: &Path, error: &Error) -> HsmError {
    HsmError::Module {
        path: path.display().to_string(),
        reason: said(error),
    }
}

fn slot(module: &Pkcs11, uri: &TokenUri) -> Result<(Slot, String), HsmError> {
    let slots = module.get_slots_with_token().map_err(|e| failed(uri, &e))?;
    let mut labels = Vec::new();
    for slot in slots {
        // A token that is pulled out at this moment is not the one that is looked for.
        let Ok(info) = module.get_token_info(slot) else {
            continue;
        };
        let wanted = info.label() == uri.token
            && uri
                .serial
                .as_ref()
                .is_none_or(|serial| serial == info.serial_number());
        if wanted {
            return Ok((slot, info.serial_number().to_owned()));
        }
        if info.token_initialized() {
            labels.push(format!("{:?}", info.label()));
        }
    }
    Err(HsmError::NoToken {
        wanted: uri.token.clone(),
        found: match labels.is_empty() {
            true => "none".to_owned(),
            false => labels.join(", "),
        },
    })
}

fn find(session: &Session, uri: &TokenUri) -> Result<Vec<ObjectHandle>, HsmError> {
    let mut template = vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Label(uri.object.clone().into_bytes()),
    ];
    template.extend(uri.id.clone().map(Attribute::Id));
    session.find_objects(&template).map_err(|e| failed(uri, &e))
}

fn key_id(serial: &str, label: &str, cka_id: &[u8]) -> [u8; HSM_ID_BYTES] {
    let mut text = b"moat pkcs11 key v1".to_vec();
    for part in [serial.as_bytes(), label.as_bytes(), cka_id] {
        text.extend_from_slice(&(part.len() as u32).to_be_bytes());
        text.extend_from_slice(part);
    }
    let mut id = [0; HSM_ID_BYTES];
    id.copy_from_slice(&digest(&SHA256, &text).as_ref()[..HSM_ID_BYTES]);
    id
}

/// Whether the token says that what it was given does not open: vendors name it differently.
fn is_sealed(error: &Error) -> bool {
    matches!(
        error,
        Error::Pkcs11(
            RvError::EncryptedDataInvalid
                | RvError::EncryptedDataLenRange
                | RvError::SignatureInvalid,
            _
        )
    )
}

fn failed(uri: &TokenUri, error: &Error) -> HsmError {
    HsmError::Token {
        token: uri.token.clone(),
        reason: said(error),
    }
}

/// The name of what a module answered: the crate's own text explains it over several sentences.
fn said(error: &Error) -> String {
    match error {
        Error::Pkcs11(rv, function) => format!("{function:?} says {rv:?}"),
        other => other.to_string(),
    }
}

fn lock(link: &Mutex<Link>) -> MutexGuard<'_, Link> {
    link.lock().unwrap_or_else(PoisonError::into_inner)
}
