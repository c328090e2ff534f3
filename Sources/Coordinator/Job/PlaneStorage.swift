import Engine

/// Where the big things of a job lie.
package enum PlaneStorage: Sendable {
    case memory
    /// Files without names in this folder.
    case unnamedFiles(folder: String)
    case job(JobFolder)

    var isMemory: Bool { if case .memory = self { true } else { false } }

    /// Memory that files of these sizes take while they are in use.
    static func residentBytes(of files: [Int]) -> Int { files.reduce(0) { $0 + min($1, StoredValues.mostResident) } }

    var folder: JobFolder? { if case .job(let folder) = self { folder } else { nil } }

    /// - Throws: `StorageError`.
    func values(_ name: String, _ element: StoredValues.Element, count: Int) throws -> StoredValues {
        switch self {
        case .memory: try StoredValues(element, count: count)
        case .unnamedFiles(let folder): try StoredValues(element, count: count, unnamedIn: folder)
        case .job(let folder):
            try StoredValues(element, count: count, path: folder.path(name), existing: folder.keeps(name))
        }
    }

    func canvas(_ name: String, _ element: StoredValues.Element, height: Int, width: Int, channels: Int) throws
        -> Canvas
    {
        Canvas(
            height: height, width: width, channels: channels,
            values: try values(name, element, count: height * width * channels))
    }
}
