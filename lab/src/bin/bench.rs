/*!
To be written.
*/
fn main() {
    println!("stockade-bench: nothing to show yet");
}
