import Testing
import Engine
@Test func imports() { }
