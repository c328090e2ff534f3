extension ModelFolder {
    /// Loads what the folder holds, for the tasks of a job of this precision.
    /// - Throws: what is wrong with the folder, in words.
    public func load(precision: Precision) throws -> any TaskModel {
        if let pipeline { return try StableDiffusion(folder: pipeline, precision: precision) }
        return try TileDenoiser(folder: self)
    }
}
