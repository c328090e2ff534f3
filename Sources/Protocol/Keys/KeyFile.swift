internal import Glibc

/// Why a key file cannot be read or made. Nothing of a file's content is repeated here: it may be a secret.
public enum KeyFileError: Error, Hashable, CustomStringConvertible {
    case unreadable(path: String, reason: String)
    case openToOthers(path: String)
    case badLine(path: String, number: Int, reason: String)
    case missing(path: String, what: String)
    /// A worker's file where a coordinator's is needed, or the other way round.
    case otherRole(path: String, is: String, needed: String)
    case exists(path: String)
    case badName(String)
    case nameTaken(path: String, name: String)
    case notWritten(path: String, reason: String)

    public var description: String {
        switch self {
        case .unreadable(let path, let reason): "\(path): the keys cannot be read (\(reason))"
        case .openToOthers(let path):
            "\(path): other users may read or write these keys; say `chmod 600 \(path.shellQuoted)`"
        case .badLine(let path, let number, let reason): "\(path): line \(number) \(reason)"
        case .missing(let path, let what): "\(path): the line '\(what)' is missing"
        case .otherRole(let path, let role, let needed):
            "\(path): holds the keys of a \(role), a \(needed)'s are needed"
        case .exists(let path): "\(path): is there already and is not overwritten; choose another name or remove it"
        case .badName(let name):
            "'\(name)' cannot name a worker: 1 to \(WireLimits.nameBytes) printable characters without blanks"
        case .nameTaken(let path, let name): "\(path): already allows a worker '\(name)'"
        case .notWritten(let path, let reason):
            "\(path): the keys cannot be written (\(reason)); choose a folder that you may write to"
        }
    }
}

/// A coordinator's keys: its own pair, and who may join.
public struct CoordinatorKeys: Sendable {
    public let path: String
    public let pair: KeyPair
    /// Names of the workers that may join, by their keys.
    public let workers: [PublicKey: String]

    /// - Throws: when the file is not a coordinator's, or not for its owner alone.
    public init(path: String) throws(KeyFileError) {
        let file = try KeyFile(path: path, role: .coordinator)
        self.path = path
        pair = file.pair
        workers = file.allowed
    }

    init(path: String, pair: KeyPair, workers: [PublicKey: String]) {
        self.path = path
        self.pair = pair
        self.workers = workers
    }

    /// Makes the file, its allow-list empty.
    /// - Parameter remarks: stand at its beginning.
    public static func make(path: String, remarks: String = "") throws {
        let pair = try KeyPair.make()
        try KeyFile.create(
            path,
            """
            \(KeyFile.remarks(remarks))role coordinator
            public \(pair.publicKey)
            secret \(pair.secret)

            """)
    }
}

/// A worker's keys: its own pair, and which coordinator it works for.
public struct WorkerKeys: Sendable {
    public let path: String
    public let pair: KeyPair
    /// The coordinator's name for it.
    public let name: String
    public let coordinator: PublicKey

    /// - Throws: when the file is not a worker's, or not for its owner alone.
    public init(path: String) throws(KeyFileError) {
        let file = try KeyFile(path: path, role: .worker)
        guard let name = file.name else { throw .missing(path: path, what: "name") }
        guard let coordinator = file.coordinator else { throw .missing(path: path, what: "coordinator") }
        self.path = path
        pair = file.pair
        self.name = name
        self.coordinator = coordinator
    }

    /// Makes the file and adds the worker to the coordinator's allow-list.
    /// - Parameter remarks: stand at the file's beginning.
    public static func make(path: String, name: String, for coordinatorPath: String, remarks: String = "") throws {
        guard Hello.isName(name) else { throw KeyFileError.badName(name) }
        let coordinator = try CoordinatorKeys(path: coordinatorPath)
        guard !coordinator.workers.values.contains(name) else {
            throw KeyFileError.nameTaken(path: coordinatorPath, name: name)
        }
        let pair = try KeyPair.make()
        try KeyFile.create(
            path,
            """
            \(KeyFile.remarks(remarks))role worker
            name \(name)
            public \(pair.publicKey)
            secret \(pair.secret)
            coordinator \(coordinator.pair.publicKey)

            """)
        do {
            try KeyFile.append(coordinatorPath, "allow \(name) \(pair.publicKey)\n")
        } catch {
            unlink(path)
            throw error
        }
    }
}

/// A file of either kind: lines of a word and its values, `#` for remarks.
private struct KeyFile {
    enum Role: String { case coordinator, worker }

    /// Bytes of a file: ten thousand workers have a tenth of it.
    static let mostBytes = 16 << 20

    let pair: KeyPair
    var name: String?
    var coordinator: PublicKey?
    var allowed: [PublicKey: String] = [:]

    init(path: String, role needed: Role) throws(KeyFileError) {
        var (role, publicKey, pair): (Role?, PublicKey?, KeyPair?) = (nil, nil, nil)
        var names: Set<Substring> = []
        for (index, line) in try Self.read(path).split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            let words = line.split(whereSeparator: \.isWhitespace)
            guard let keyword = words.first, !keyword.hasPrefix("#") else { continue }
            func wrong(_ reason: String) -> KeyFileError { .badLine(path: path, number: index + 1, reason: reason) }
            guard words.count == (keyword == "allow" ? 3 : 2) else {
                throw wrong("has not the words that belong there")
            }
            switch keyword {
            case "role":
                guard let read = Role(rawValue: String(words[1])), role == nil else {
                    throw wrong("is not 'role coordinator' or 'role worker', once")
                }
                guard read == needed else { throw .otherRole(path: path, is: read.rawValue, needed: needed.rawValue) }
                role = read
            case "public":
                guard let key = PublicKey(words[1]), publicKey == nil else {
                    throw wrong("is not one key of 40 characters")
                }
                publicKey = key
            case "secret":
                guard let read = KeyPair(secret: words[1]), pair == nil else {
                    throw wrong("is not one key of 40 characters")
                }
                pair = read
            case "coordinator" where needed == .worker:
                guard let key = PublicKey(words[1]), coordinator == nil else {
                    throw wrong("is not one key of 40 characters")
                }
                coordinator = key
            case "name" where needed == .worker:
                guard Hello.isName(words[1]), name == nil else { throw wrong("is not one name") }
                name = String(words[1])
            case "allow" where needed == .coordinator:
                guard Hello.isName(words[1]), let key = PublicKey(words[2]) else {
                    throw wrong("is not 'allow NAME PUBLIC-KEY'")
                }
                guard names.insert(words[1]).inserted, allowed.updateValue(String(words[1]), forKey: key) == nil else {
                    throw wrong("allows a name or a key twice")
                }
            default: throw wrong("begins with a word that is not known")
            }
        }
        guard role != nil else { throw .missing(path: path, what: "role") }
        guard let pair else { throw .missing(path: path, what: "secret") }
        guard let publicKey else { throw .missing(path: path, what: "public") }
        guard pair.publicKey == publicKey else { throw .missing(path: path, what: "public \(pair.publicKey)") }
        self.pair = pair
    }

    private static var reason: String { String(cString: strerror(errno)) }

    private static func read(_ path: String) throws(KeyFileError) -> String {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { throw .unreadable(path: path, reason: reason) }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw .unreadable(path: path, reason: reason) }
        guard status.st_mode & S_IFMT == S_IFREG else { throw .unreadable(path: path, reason: "it is not a file") }
        // A file of root's that a service's group may read is meant to be read by it: so systemd hands out credentials.
        let forbidden: mode_t = status.st_uid == 0 && geteuid() != 0 ? 0o037 : 0o077
        guard status.st_mode & forbidden == 0 else { throw .openToOthers(path: path) }
        var bytes: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            let count = Glibc.read(descriptor, &piece, piece.count)
            if count < 0 && errno == EINTR { continue }
            guard count >= 0 else { throw .unreadable(path: path, reason: reason) }
            if count == 0 { break }
            bytes += piece.prefix(count)
            guard bytes.count <= mostBytes else { throw .unreadable(path: path, reason: "it is too large to be one") }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// - Returns: the lines of `text`, as a file has them.
    static func remarks(_ text: String) -> String { text.split(separator: "\n").map { "# \($0)\n" }.joined() }

    static func create(_ path: String, _ text: String) throws(KeyFileError) {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw errno == EEXIST ? .exists(path: path) : .notWritten(path: path, reason: reason)
        }
        defer { close(descriptor) }
        guard write(descriptor, text), fsync(descriptor) == 0 else {
            let error = KeyFileError.notWritten(path: path, reason: reason)
            unlink(path)
            throw error
        }
    }

    /// One write, so that whoever reads the file meanwhile has the line or has it not.
    static func append(_ path: String, _ line: String) throws(KeyFileError) {
        let endsInLine = try read(path).utf8.last == 0x0A
        let descriptor = open(path, O_WRONLY | O_APPEND | O_CLOEXEC)
        guard descriptor >= 0 else { throw .notWritten(path: path, reason: reason) }
        defer { close(descriptor) }
        guard write(descriptor, (endsInLine ? "" : "\n") + line), fsync(descriptor) == 0 else {
            throw .notWritten(path: path, reason: reason)
        }
    }

    private static func write(_ descriptor: Int32, _ text: String) -> Bool {
        let bytes = Array(text.utf8)
        return Glibc.write(descriptor, bytes, bytes.count) == bytes.count
    }
}
