/// The part that was cut off a prompt that is too long for its text encoder.
public struct PromptCut: Sendable, Hashable, CustomStringConvertible {
    /// Whether it was the negative prompt.
    public var isNegative: Bool
    /// Tokens of the whole prompt, and of the part that is used; without those that begin and end every text.
    public var tokens, used: Int
    /// The part that is not used, normalised.
    public var dropped: String

    public init(isNegative: Bool = false, tokens: Int, used: Int, dropped: String) {
        (self.isNegative, self.tokens, self.used, self.dropped) = (isNegative, tokens, used, dropped)
    }

    public var description: String {
        "the \(isNegative ? "negative " : "")prompt is longer than \(used) tokens and was cut; it has \(tokens), and "
            + "this part of it is not used: \(dropped.prefix(200)); shorten it"
    }
}
