/// The version of tilefarm, of all its programs.
public enum Version {
    public static let number = "0.5.0"
}
