import Testing
import Protocol
@Test func imports() { }
